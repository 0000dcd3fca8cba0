"""A store against the living: views drawn again, and the teacher asked again."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from kdcache.base.arrays import IntArray
from kdcache.base.devices import chosen_device
from kdcache.base.progress import Progress
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError
from kdcache.labels.quantising import GAPS_A_NAT
from kdcache.labels.reduction import centre
from kdcache.networks.build import build_network
from kdcache.networks.preparation import Preparation
from kdcache.networks.teacher import Teacher
from kdcache.networks.weights import load_weights, weights_digest
from kdcache.pipelines.settings import VerifySettings
from kdcache.store.store import Store
from kdcache.views.draw import ViewDataset, ViewRequest, draw_requests
from kdcache.views.mixing import mix_rows, with_partners
from kdcache.views.replay import grade_replay, require_decoder
from kdcache.views.sources import Data
from kdcache.views.transforms import PRESETS, build_transform
from kdcache.whole_store.verify import Check

BATCH = 256
SURE = -12.0  # log-probability above which two answers are compared: below it gaps may be clamped
CONTROL_FACTOR = 4.0

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Replay:
    """A store, its data set, and the views of one drawn by the transform of the other."""

    store: Store
    data: Data
    dataset: ViewDataset


def open_replay(store: Store, data: Data, settings: VerifySettings) -> Replay:
    """Raises InvalidInputError where the store's transform is a user's own and is not named, or is another."""
    require_decoder(store.manifest.provenance, data.decoder, store=str(store.folder.root))
    spec = store.identity.plan.transform
    name, arguments = settings.transform, settings.transform_set
    if not name and spec.name in PRESETS:
        name, arguments = spec.name, spec.arguments
    if not name:
        raise InvalidInputError(f"the store's transform is {spec.name}, not a preset; name it again with --transform")
    transform, given = build_transform(name, arguments)
    if given != spec:
        raise InvalidInputError(f"the store's transform is {spec.model_dump()}, the settings name {given.model_dump()}")
    return Replay(store, data, ViewDataset(data.samples, store.order, store.identity.plan, transform))


def compare_pixels(replay: Replay, rows: IntArray, workers: int, progress: Progress) -> Check:
    """Draw views of some rows again and compare every fingerprint."""
    store = replay.store
    differing: dict[int, int] = {}
    done, total = 0, len(rows) * len(store.every_view)
    for drawn in draw_requests(replay.dataset, _requests(store.every_view, rows), workers):
        view, positions = drawn.request.views.start, drawn.request.positions
        wrong = int((store.load(view, positions).arrays["pixels"] != drawn.pixels[0]).sum())
        differing[view] = differing.get(view, 0) + wrong
        done += len(positions)
        progress("replaying views", done, total)
    count = sum(differing.values())
    detail = f"{done} views of {len(rows)} rows drawn again, {count} differ"
    worst = max(differing, key=lambda view: differing[view], default=0)
    if count and 0 in store.segment_of(worst).commits():  # where the canary lies
        grade = grade_replay(store, replay.dataset, worst)
        versions = ", ".join(grade.versions) or "none"
        detail += (
            f"; view {worst} is graded {grade.grade}, {grade.levels:.1f} levels off; versions that differ: {versions}"
        )
    return Check(name="pixels", passed=not count, detail=detail)


def _requests(every_view: tuple[int, ...], rows: IntArray) -> Iterator[ViewRequest]:
    for view in every_view:
        for start in range(0, len(rows), BATCH):
            yield ViewRequest(ViewSpan.of(view), rows[start : start + BATCH])


def compare_teacher(replay: Replay, rows: IntArray, settings: VerifySettings, progress: Progress) -> list[Check]:
    """Ask the teacher again for some rows of the first view.

    The tolerance is what quantising may do, and four times what the teacher differs from itself when the same rows
    come in other batches. Reports max |delta log p| at T = 1 over classes with log p > -12, and rows whose top class
    flips by more than the tolerance.
    """
    identity = replay.store.identity
    teacher = _open_teacher(replay, settings)
    digest = weights_digest(teacher.network)
    if digest != identity.teacher.weights:
        detail = f"the store's teacher has weights {identity.teacher.weights[:16]}, this one {digest[:16]}"
        why = "not run: other weights give other answers"
        return [
            Check(name="teacher weights", passed=False, detail=detail),
            Check(name="teacher answers", passed=False, detail=why),
        ]
    checks = [Check(name="teacher weights", passed=True, detail=f"sha256 {digest[:16]}")]
    view = replay.store.every_view[0]
    once = _ask(replay, teacher, view, rows, BATCH)
    progress("asking the teacher", 1, 2)
    again = _ask(replay, teacher, view, rows[::-1].copy(), BATCH // 4 - 1)[::-1]
    progress("asking the teacher", 2, 2)
    control = float(np.abs(once - again)[once > SURE].max())
    soft = replay.store.read(view, rows)
    stored, classes = soft.log_probs(1.0), np.asarray(soft.classes).astype(np.int64)
    live = np.take_along_axis(once, classes, axis=-1)
    off = float(np.abs(stored - live)[live > SURE].max())
    tolerance = _quantising(replay.store, once) + CONTROL_FACTOR * control
    first = np.take_along_axis(classes, stored.argmax(axis=-1)[:, None], axis=-1)
    lead = once.max(axis=-1) - np.take_along_axis(once, first, axis=-1)[:, 0]
    flips = int((lead > tolerance).sum())
    detail = f"{len(rows)} rows of view {view}: max |delta log p| {off:.2g}, tolerance {tolerance:.2g} "
    detail += f"(live against live {control:.2g}), {flips} top classes flipped"
    checks.append(Check(name="teacher answers", passed=off <= tolerance and not flips, detail=detail))
    return checks


def _open_teacher(replay: Replay, settings: VerifySettings) -> Teacher:
    known = replay.store.identity.teacher
    network = build_network(settings.teacher, settings.teacher_set, replay.data.classes, "teacher")
    if settings.weights:
        load_weights(network, settings.weights)
    preparation = Preparation(known.mean, known.std, chosen_device(settings.device))
    return Teacher(network, preparation=preparation, precision=known.precision, masked_classes=known.masked_classes)


def _ask(replay: Replay, teacher: Teacher, view: int, rows: IntArray, batch: int) -> Array:
    """Log-probabilities [R, C] f32 of the living teacher over the same views."""
    answers = []
    for start in range(0, len(rows), batch):
        answers.append(_log_probs(replay, teacher, view, rows[start : start + batch]))
    return np.concatenate(answers)


def _log_probs(replay: Replay, teacher: Teacher, view: int, positions: IntArray) -> Array:
    plan = replay.dataset.plan
    everything = with_partners(plan, positions, view, len(replay.dataset.order))
    drawn = replay.dataset[ViewRequest(ViewSpan.of(view), everything)]
    prepared = teacher.preparation(drawn.images[0])
    logits, _ = teacher.answer(mix_rows(prepared, drawn.mixing[0], everything, len(positions), plan.mix))
    with torch.inference_mode():
        found: Array = centre(logits, teacher.masked_classes).log_softmax(dim=-1).cpu().numpy()
    return found


def _quantising(store: Store, live: Array) -> float:
    """How far a stored log-probability may be off: half a step of its gap, and as much of the normaliser."""
    encoding = store.identity.encoding
    if encoding.k is None:
        return float(2.0**-10 * max(1.0, -SURE + float(live.max(initial=0.0))))
    return 1.0 / GAPS_A_NAT[encoding.quantisation] + 1.0 / 128
