"""The report of an extraction: a summary of its measures, its commits and its store."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kdcache.base.records import Record
from kdcache.base.view_span import ViewSpan
from kdcache.networks.teacher_check import twice_chance
from kdcache.pipelines.extract.block_runner import LoopMeasures
from kdcache.store.commits import totals
from kdcache.store.segment import Segment
from kdcache.store.store import Store

NAMED = 8  # struck samples that a note lists
FEW_VIEWS = 32  # labelled, below which their accuracy says little
SURE = 4.0  # standard deviations
CLAMPED_SHARE = 0.001  # of rows, above which the user should know


class ExtractSummary(Record):
    """The summary that `kdcache extract` prints at its end. Rows are (position, view) pairs; accuracies are top-1.

    `seconds` are those of the block loop, `checks_seconds` those of all before it. In the `waited_for_` seconds the
    teacher idled; on Dask they are summed over the workers. Memory is in bytes: the peak of this process, the bound
    that was computed beforehand (not on Dask), and the peak of the largest worker.
    """

    store: str
    content_id: str | None
    views: ViewSpan
    rows: int
    blocks: int
    blocks_done_before: int
    bytes: int
    bytes_a_row: float
    seconds: float
    rows_a_second: float
    checks_seconds: float
    waited_for_writer: float
    waited_for_views: float
    memory_peak: int | None
    memory_bound: int | None
    memory_peak_worker: int | None
    accuracy_clean: float | None
    accuracy_views: float | None
    clamped_rows: int
    struck: int
    mixed_blocks: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """The facts of an extraction that are known before its first block: `path` of the store as the user wrote it,
    monotonic `start_time`, the teacher's `accuracy` on clean rows, the number of blocks done before, and notes."""

    path: str
    store: Store
    segment: Segment
    start_time: float
    accuracy: float | None
    blocks_done_before: int
    notes: tuple[str, ...]
    sample_name: Callable[[int], str] = str  # of a position

    def summary(self, measures: LoopMeasures, content_id: str | None) -> ExtractSummary:
        """The summary after the last block. `content_id`: of the seal, None where the store was not sealed."""
        commits = self.segment.commits()
        counts = totals(commits)
        new_rows = counts["rows"] * (len(commits) - self.blocks_done_before) / max(len(commits), 1)
        return ExtractSummary(
            store=self.path,
            content_id=content_id,
            views=self.segment.views,
            rows=counts["rows"],
            blocks=len(commits),
            blocks_done_before=self.blocks_done_before,
            bytes=counts["bytes"],
            bytes_a_row=counts["bytes"] / max(counts["rows"], 1),
            seconds=measures.seconds,
            rows_a_second=new_rows / max(measures.seconds, 1e-9),
            checks_seconds=measures.start_time - self.start_time,
            waited_for_writer=measures.waited_for_writer,
            waited_for_views=measures.waited_for_views,
            memory_peak=measures.memory_peak,
            memory_bound=measures.memory_bound,
            memory_peak_worker=measures.memory_peak_worker,
            accuracy_clean=self.accuracy,
            accuracy_views=counts["correct"] / counts["labelled"] if counts["labelled"] else None,
            clamped_rows=counts["clamped"],
            struck=counts["struck"],
            mixed_blocks=counts["mixed_blocks"],
            notes=(*self._count_notes(counts), *measures.notes, *self.notes),
        )

    def _struck_names(self) -> str:
        positions = self.segment.struck().tolist()
        rest = f" and {len(positions) - NAMED} more" if len(positions) > NAMED else ""
        return ", ".join(map(self.sample_name, positions[:NAMED])) + rest

    def _count_notes(self, counts: dict[str, int]) -> Iterator[str]:
        transform = self.store.identity.plan.transform
        yield from clamped_notes(counts["clamped"], counts["rows"])
        if counts["mixed_blocks"]:
            yield f"{counts['mixed_blocks']} blocks hold shards of two writers whose logits differ slightly"
        if counts["struck"]:
            problem = f"{counts['struck']} samples could not be read and are struck"
            yield f"{problem}: {self._struck_names()}; training leaves them out"
        yield from self._view_notes(counts["correct"], counts["labelled"])
        if not counts["labelled"]:
            yield "no row is labelled: the teacher could not be checked against hard labels"
        if not all_whole(self.store):
            yield "other segments are not whole yet: the store was not sealed"
        if transform.text:
            yield f"students need --transform {transform.name} with the same settings to replay the views"

    def _view_notes(self, correct: int, labelled: int) -> Iterator[str]:
        """A note where the teacher knows clean rows, and hardly any view: below the limit, by more than chance."""
        if self.accuracy is None or labelled < FEW_VIEWS:
            return
        accuracy, limit = correct / labelled, twice_chance(self.store.identity.teacher.label_classes)
        if accuracy < limit and self.accuracy - accuracy > SURE * (self.accuracy / labelled) ** 0.5:
            yield (
                f"the teacher's top-1 accuracy is {self.accuracy:.3f} on clean rows and {accuracy:.3f} on the views: "
                f"the transform {self.store.identity.plan.transform.name} may destroy the images; draw a few and look "
                "at them"
            )


def clamped_notes(clamped: int, rows: int) -> tuple[str, ...]:
    """A note where more than a thousandth of the rows is clamped."""
    if clamped <= CLAMPED_SHARE * rows:
        return ()
    return (f"{clamped} rows have a logit gap too wide for their integers: consider --quantisation high",)


def all_whole(store: Store) -> bool:
    """True where every block of every segment is committed, so that the store can be sealed."""
    return all(len(segment.commits()) == segment.layout.blocks for segment in store.segments)
