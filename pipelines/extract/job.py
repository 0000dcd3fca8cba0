"""A job is all that an extraction is made of: data set, transform, teacher, order, and the identity of all that; of
pictures, or of texts."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from kdcache.base.arrays import IntArray
from kdcache.base.progress import Progress, silent
from kdcache.base.view_span import ViewSpan
from kdcache.errors import SampleError
from kdcache.networks.checks import check_teacher, require_determinism
from kdcache.networks.extract_block import BlockExtractor
from kdcache.networks.forward_memory import ForwardMemory
from kdcache.networks.head_check import HeadCheck
from kdcache.networks.loop_memory import NO_FORWARD
from kdcache.networks.teacher import Teacher
from kdcache.networks.teacher_check import TeacherCheck
from kdcache.networks.text_block import TextExtractor
from kdcache.networks.text_checks import check_text_teacher
from kdcache.networks.text_teacher import TextTeacher
from kdcache.store.id_sums import IdSums, id_sums
from kdcache.store.layout import SegmentLayout
from kdcache.store.lineage import Ancestor
from kdcache.store.manifest import Identity, Provenance
from kdcache.views.data import Data
from kdcache.views.draw import ViewDataset

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

    EXTRACTOR: ClassVar[type[BlockExtractor]] = BlockExtractor

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
        return self.EXTRACTOR(
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


@dataclass(frozen=True)
class TextJob(Job):
    """The parts of an extraction of texts. `order` [N] and `labels` [N] are of tokens, `dataset` draws texts."""

    EXTRACTOR: ClassVar[type[BlockExtractor]] = TextExtractor

    teacher: TextTeacher

    def check(self, min_accuracy: float | None, progress: Progress = silent) -> TeacherCheck:
        """Check that texts are read the same twice, and that the teacher knows their language."""
        require_determinism(self.dataset, self.views.start)
        checked = check_text_teacher(
            self.teacher,
            dataset=self.dataset,
            labels=self.labels,
            view=self.views.start,
            texts=self.teacher.texts_of(self.data.sequence, self.batch_rows),
            min_accuracy=min_accuracy,
            progress=progress,
        )
        self.teacher.require_same_weights()
        return replace(checked, notes=(*self.notes, *checked.notes))

    def id_sums(self, start: int, stop: int) -> IdSums:
        """The sums over the ids of the texts of positions start to stop - 1, for their block's commit."""
        first, last = start // self.data.sequence, stop // self.data.sequence
        return id_sums(first, (self.data.ids[index] for index in self.dataset.order[first:last].tolist()))

    def sample_name(self, position: int) -> str:
        """The token, the text and its id at a position, for errors."""
        text, token = divmod(int(self.order[position]), self.data.sequence)
        return f"token {token} of text {text} ({self.data.ids[text]})"


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
