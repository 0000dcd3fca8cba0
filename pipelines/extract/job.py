"""A job is built from extract's settings: data set, transform, teacher, order, and the identity of all that."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdcache.base.arrays import IntArray
from kdcache.base.devices import chosen_device
from kdcache.base.progress import Progress, silent
from kdcache.base.records import validated
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError, SampleError
from kdcache.labels.encoding import Choice, Contents, Encoding, LabelSpace
from kdcache.labels.encodings import chosen
from kdcache.networks.answer import Answer
from kdcache.networks.answers import Answers
from kdcache.networks.build import build_network, network_codes, network_text
from kdcache.networks.checks import TeacherCheck, check_teacher, require_determinism
from kdcache.networks.extract_block import BlockExtractor
from kdcache.networks.first_views import first_views, give_shapes
from kdcache.networks.forward_memory import ForwardMemory
from kdcache.networks.head_check import HeadCheck
from kdcache.networks.loop_memory import NO_FORWARD
from kdcache.networks.own_input import feeding, own_input
from kdcache.networks.preparation import Preparation
from kdcache.networks.teacher import Teacher
from kdcache.networks.transformers_folder import recorded
from kdcache.networks.weights import load_weights
from kdcache.pipelines.extract.class_matching import classes_to_build, matched_classes
from kdcache.pipelines.extract.kept import classifier, kept_taps
from kdcache.pipelines.extract.subclasses import chosen_subclasses, require_subclasses
from kdcache.pipelines.extract.views import open_views, stored_identity
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.id_sums import IdSums, id_sums
from kdcache.store.layout import SegmentLayout
from kdcache.store.lineage import Ancestor, open_lineage, read_subclasses
from kdcache.store.manifest import DatasetIdentity, Identity, Provenance, TeacherIdentity
from kdcache.store.plan import GROUP
from kdcache.store.segment_layout import require_small_taps
from kdcache.store.whole_arrays import make_order
from kdcache.views.contents import contents_of
from kdcache.views.data import Data
from kdcache.views.draw import ViewDataset
from kdcache.views.provenance import provenance
from kdcache.views.readable import first_view

Array = npt.NDArray[np.float32]
BOTH_WAYS = (
    "mend or restore it and run the same command again, or add --on-bad-sample strike, which leaves such samples "
    "without an answer and goes on from here too (kdcache doctor --data lists them all beforehand). A data set without "
    "the sample is another one: its store would begin anew"
)


@dataclass(frozen=True)
class Job:
    """The parts of an extraction. `head` is the classifier that `--keep head` writes, `lineage` the stores that the
    teacher learned from, `view_bytes` the size of one view, `notes` those on data, classes, the teacher's weights and
    its input. `is_new`: no store stands yet. `forward`: the memory of the checks' forward, once it was measured."""

    data: Data
    teacher: Teacher
    identity: Identity
    order: IntArray
    labels: IntArray
    dataset: ViewDataset
    provenance: Provenance
    lineage: tuple[Ancestor, ...]
    head: dict[str, Array]
    views: ViewSpan
    batch_rows: int
    view_bytes: int
    is_new: bool = True
    notes: tuple[str, ...] = ()
    forward: ForwardMemory = NO_FORWARD

    def check(self, min_accuracy: float | None, progress: Progress = silent) -> TeacherCheck:
        """Check that the transform replays and the teacher knows its data set."""
        with naming_samples(self.data):
            replay_notes = require_determinism(self.dataset, self.views.start, views_asked=len(self.views))
            checked = check_teacher(
                self.teacher,
                self.data,
                order=self.order,
                dataset=self.dataset,
                min_accuracy=min_accuracy,
                is_new=self.is_new,
                head=HeadCheck.of(self.identity, self.head),
                progress=progress,
            )
        self.teacher.require_same_weights()
        return replace(checked, notes=(*self.notes, *replay_notes, *checked.notes))

    def extractor(self, layout: SegmentLayout) -> BlockExtractor:
        """The extractor of a layout's blocks."""
        return BlockExtractor(
            layout=layout,
            identity=self.identity,
            teacher=self.teacher,
            order=self.order,
            labels=self.labels,
            sample_name=self.sample_name,
            batch_rows=self.batch_rows,
            view_bytes=self.view_bytes,
            forward=self.forward,
        )

    def id_sums(self, start: int, stop: int) -> IdSums:
        """The sums over the ids of positions start to stop - 1, for their block's commit."""
        return id_sums(start, (self.data.ids[index] for index in self.order[start:stop].tolist()))

    def sample_name(self, position: int) -> str:
        """Dataset index and id of a position, for errors."""
        index = int(self.order[position])
        return f"sample {index} ({self.data.ids[index]})"


@contextmanager
def naming_samples(data: Data) -> Iterator[None]:
    """Let the error of a sample that cannot be read name both ways on."""
    try:
        yield
    except SampleError as error:
        if error.part != "data set" or BOTH_WAYS in str(error):
            raise
        name = "" if data.ids[error.index] in str(error) else f" ({data.ids[error.index]})"
        raise SampleError(f"{error}{name}; {BOTH_WAYS}", error.index) from error


def open_job(settings: ExtractSettings, progress: Progress = silent) -> Job:
    """Build the parts of the job and read the data set's identity; nothing is written. Raises InvalidInputError."""
    if settings.batch_size < GROUP or settings.batch_size % GROUP:
        raise InvalidInputError(f"batch size {settings.batch_size} is not a multiple of {GROUP}, the mixing group")
    strikes = settings.on_bad_sample == "strike"
    data, transform, plan = open_views(settings, progress)
    device = chosen_device(settings.device)
    with naming_samples(data):
        view, data_identity = first_view(transform, data.samples, plan.seed, strikes=strikes), data.identity()
    stored = stored_identity(settings)
    teacher, teacher_notes = _open_teacher(settings, data, view, device, stored.teacher if stored else None)
    answer = _first_answer(teacher, view)
    subclasses = teacher.answers.subclasses
    require_subclasses(int(answer.logits.shape[1]), subclasses, data)
    count = int(answer.logits.shape[1]) // subclasses
    class_map = matched_classes(settings, data, teacher, classes=count, stored=stored.teacher if stored else None)
    if class_map.map:
        teacher.map_answers(Answers(teacher.answers.kind, class_map.map, class_map.classes))
        answer = _first_answer(teacher, view)
    classes, head = int(answer.logits.shape[1]), classifier(teacher, answer, settings.keep)
    space = LabelSpace(classes, teacher.masked_classes, subclasses=subclasses)
    encoding = _encoding(settings, space, contents_of(data.samples))
    width = int(head["weight"].shape[1]) if head else 0
    encoding = encoding.model_copy(
        update={
            "features": width if "features" in settings.keep else 0,
            "head": width if "head" in settings.keep else 0,
            "taps": kept_taps(teacher, view, settings.keep),
        }
    )
    order, order_identity = make_order(len(data), settings.order, settings.seed)
    parents, lineage = open_lineage(settings.weights, settings.parents)
    identity = validated(
        Identity,
        "the store's identity",
        dataset=_with_fitting_labels(data_identity, data, classes // subclasses),
        order=order_identity,
        views=plan,
        teacher=teacher.identity(
            *recorded(settings.teacher, settings.teacher_set, teacher.network),
            classes,
            network_text(teacher.network, settings.teacher, stored.teacher.text if stored else ""),
        ),
        encoding=encoding,
        parents=parents,
    )
    require_small_taps(identity, settings.views)
    return Job(
        data=data,
        teacher=teacher,
        identity=identity,
        order=order,
        labels=data.labels[order].astype(np.int64),
        dataset=ViewDataset(
            data.samples,
            order,
            plan,
            transform,
            encoding.kinds_of_contents,
            data.ids,
            stand_in=torch.zeros_like(view).numpy() if strikes else None,
        ),
        provenance=provenance(
            device,
            decoder=data.decoder,
            data=data.name,
            code=network_codes(teacher.network, settings.teacher),
        ),
        lineage=lineage,
        head=head if "head" in settings.keep else {},
        views=settings.views,
        batch_rows=settings.batch_size if teacher.forward_rows is None else GROUP,
        view_bytes=view.nbytes,
        is_new=stored is None,
        notes=(*data.notes, *class_map.notes, *teacher_notes, *teacher.notes, *_masked_notes(settings, data)),
    )


def _first_answer(teacher: Teacher, view: Tensor) -> Answer:
    """The answer to one view twice. Raises InvalidInputError for a network that does not take such views."""
    images = teacher.preparation(view[None].expand(2, *view.shape))
    with first_views(teacher.network, images, "teacher", precision=teacher.precision):
        return teacher.answer_at_once(images)


def _open_teacher(
    settings: ExtractSettings, data: Data, view: Tensor, device: str, stored: TeacherIdentity | None
) -> tuple[Teacher, tuple[str, ...]]:
    """The teacher before its classes are matched with the data's, and notes on its weights file and how it is fed."""
    weights, subclasses = settings.weights, chosen_subclasses(settings)
    classes = classes_to_build(settings, data, stored)
    network = build_network(settings.teacher, settings.teacher_set, classes, "teacher")
    taken = own_input(network, settings.teacher, settings.teacher_set, weights)
    notes = load_weights(network, weights, "teacher", (read_subclasses(weights), subclasses)) if weights else ()
    fed = feeding((settings.mean, settings.std), view, own=taken, stored=stored)
    preparation = Preparation(fed.mean, fed.std, device)
    give_shapes(network, preparation(view[None]), "teacher")
    kind = settings.teacher_answers or (stored.answers if stored else "logits")
    teacher = Teacher(
        network,
        preparation=preparation,
        precision=settings.precision,
        masked_classes=settings.mask_classes,
        answers=Answers(kind, subclasses=subclasses),
    )
    return teacher, (*notes, *fed.notes)


def _encoding(settings: ExtractSettings, space: LabelSpace, contents: Contents | None) -> Encoding:
    """The encoding that the settings ask for, without what `--keep` adds."""
    if wrong_classes := [number for number in settings.mask_classes if not 0 <= number < space.classes]:
        raise InvalidInputError(f"masked classes {wrong_classes} are not among the teacher's {space.classes} classes")
    name = settings.encoding
    if name == "auto":
        is_free = space.subclasses > 1 and "top_k" not in settings.model_fields_set
        name = "full" if settings.top_k >= space.visible or is_free else "topk"
    stored = stored_encoding(settings)
    encoding = chosen(name, chosen_words(settings), space, like=stored)
    contents = contents if stored is None else stored.contents
    return encoding.model_copy(update={"contents": contents})


def chosen_words(settings: ExtractSettings) -> Choice:
    """The words of the settings that choose an encoding."""
    packing = None if settings.packing == "auto" else settings.packing
    return Choice(
        settings.top_k,
        settings.quantisation,
        packing,
        shuffled=settings.order == "shuffled",
        draws=settings.draws,
        draw_temperature=settings.draw_temperature,
    )


def stored_encoding(settings: ExtractSettings) -> Encoding | None:
    """The encoding of the store that stands already, None where there is none."""
    identity = stored_identity(settings)
    return None if identity is None else identity.encoding


def _masked_notes(settings: ExtractSettings, data: Data) -> tuple[str, ...]:
    """A note where rows are labelled with masked classes."""
    if not (count := int(np.isin(data.labels, settings.mask_classes).sum())):
        return ()
    return (
        f"{count:,} rows are labelled with classes that --mask-classes names, to which their soft labels give no "
        "probability; the accuracy over views leaves them out",
    )


def _with_fitting_labels(identity: DatasetIdentity, data: Data, classes: int) -> DatasetIdentity:
    """The data set's identity. Raises InvalidInputError for labels that are none of the teacher's classes."""
    if len(indices := np.flatnonzero(data.labels >= classes)):
        examples = ", ".join(
            f"sample {index} ({data.ids[index]}) has {data.labels[index]}" for index in indices[:3].tolist()
        )
        raise InvalidInputError(
            f"{len(indices)} labels do not fit the teacher's {classes} classes, 0 to {classes - 1}: {examples}; "
            "use a teacher of these classes, mend the labels, or say by --class-map FILE which classes these are"
        )
    return identity
