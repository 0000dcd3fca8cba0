"""What `--keep` asks for beside the logits: the classifier, and the taps with their shapes.

Shape letters: B rows, C classes, D width of the features.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
from torch import Tensor

from kdcache.base.records import validated
from kdcache.base.tap_names import TAP
from kdcache.errors import InvalidInputError
from kdcache.labels.encoding import TAPS_MAX, Encoding, Tap
from kdcache.networks.answer import Answer
from kdcache.networks.answers import LEAST
from kdcache.networks.first_views import first_views
from kdcache.networks.heads import DISORDER
from kdcache.networks.layers import layer_shapes, stages_of
from kdcache.networks.teacher import Teacher

Array = npt.NDArray[np.float32]


def classifier(teacher: Teacher, answer: Answer, keep: tuple[str, ...]) -> dict[str, Array]:
    """Weight [C, D] and bias [C] of the linear layer whose input and output are the features and the logits of an
    answer; empty where neither features nor head are kept. A network may scale the output or bend it, if it leaves the
    classes in their order: `HeadCheck` has a note on that. Raises InvalidInputError where there is none."""
    if not {"features", "head"} & set(keep):
        return {}
    head, features, logits = teacher.head_arrays(), answer.features, answer.logits.cpu().numpy()
    if len(head["bias"]) != logits.shape[1]:
        raise InvalidInputError(
            f"the teacher's last linear layer has {len(head['bias'])} outputs, its answer {logits.shape[1]} classes: "
            "it is not its classifier; extract without --keep"
        )
    if features is None:
        raise InvalidInputError("the teacher gives no pooled features before a linear head; extract without --keep")
    head_logits = np.delete(features.cpu().numpy() @ head["weight"].T + head["bias"], teacher.answers.unreached, axis=1)
    logits = np.delete(logits, teacher.answers.unreached, axis=1)
    if teacher.answers.kind == "probs":  # known up to a number for each row, and clamped
        least = float(np.log(LEAST))
        head_logits, logits = (np.maximum(z - z.max(axis=1, keepdims=True), least) for z in (head_logits, logits))
    in_order = np.take_along_axis(head_logits, np.argsort(logits, axis=1), axis=1)
    if not (np.diff(in_order, axis=1) >= -DISORDER * np.ptp(head_logits)).all():
        raise InvalidInputError("the teacher's last linear layer is not its classifier; extract without --keep")
    return head


def kept_taps(teacher: Teacher, view: Tensor, keep: tuple[str, ...]) -> tuple[Tap, ...]:
    """The taps that `--keep` names, in its order, the stages in that of the network; the teacher watches them from now
    on. Raises InvalidInputError for a layer that the teacher has not, one that gives no numbers by row, a tap that is
    named twice, and stages of a network without any."""
    images = teacher.preparation(view[None].expand(2, *view.shape))
    names = list(_names(teacher, images, keep))
    if twice := [name for name in names if names.count(name) > 1]:
        raise InvalidInputError(
            f"--keep names tap {twice[0]} twice: it is one of the stages; leave out {TAP}{twice[0]}"
        )
    if len(names) > TAPS_MAX:
        raise InvalidInputError(f"--keep names {len(names)} taps, allowed are {TAPS_MAX}; name fewer layers")
    teacher.watch(names)
    if not names:
        return ()
    with first_views(teacher.network, images, "teacher", precision=teacher.precision):
        taps = teacher.answer_at_once(images).taps
    return tuple(_tap(name, taps[name]) for name in names)


def _names(teacher: Teacher, images: Tensor, keep: Iterable[str]) -> Iterator[str]:
    for word in keep:
        if word.startswith(TAP):
            yield word.removeprefix(TAP)
        elif word == "stages":
            stages = stages_of(teacher.network, layer_shapes(teacher.network, images))
            if not stages:
                raise InvalidInputError(
                    "--keep stages: the teacher has no stages, neither maps of several sizes nor a list of blocks that "
                    "work on tokens; name its layers by --keep tap:LAYER (kdcache taps lists them)"
                )
            yield from (f"{layer}@1x1" for layer in stages)


def _tap(name: str, values: Tensor) -> Tap:
    """The record of a tap, from two rows of it."""
    if not values.is_floating_point():
        raise InvalidInputError(f"layer {name} of the teacher gives {values.dtype}; keep a layer of real numbers")
    tap: Tap = validated(Tap, f"tap {name}", name=name, shape=tuple(values.shape[1:]))
    return tap


def keep_words(encoding: Encoding) -> str:
    """The value of `--keep` that keeps what an encoding does; "" for nothing."""
    words = [name for name in ("features", "head") if getattr(encoding, name)]
    return ",".join([*words, *(f"{TAP}{tap.name}" for tap in encoding.taps)])
