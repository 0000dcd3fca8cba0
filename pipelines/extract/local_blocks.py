"""Blocks are extracted in this process: views are drawn in others or here, the teacher answers, a thread writes."""

import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import islice

import torch

from kdcache.base.engine import LOCAL, Engine
from kdcache.base.launch import ALONE, Launch
from kdcache.base.memory import peak_rss_bytes
from kdcache.base.progress import Progress, StopRequest, silent
from kdcache.base.rank_engine import RankEngine
from kdcache.errors import InvalidInputError
from kdcache.networks.extract_block import BlockAnswer, BlockExtractor
from kdcache.networks.out_of_memory import naming_memory
from kdcache.pipelines.extract.block_report import RESUME, THIS_PROCESS, BlockReport, RowProgress, rows_of
from kdcache.pipelines.extract.earlier_contents import EarlierContents
from kdcache.pipelines.extract.filled_caches import filled_caches
from kdcache.pipelines.extract.fresh_draws import FreshDraws
from kdcache.pipelines.extract.job import Job, naming_samples
from kdcache.pipelines.extract.smaller_batches import half, memory_words
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.plan import GROUP
from kdcache.store.segment import Segment
from kdcache.training.process_group import own_device
from kdcache.views.draw import ViewDataset
from kdcache.views.view_stack import Drawn
from kdcache.views.workers import draw_requests


def on_own_device(settings: ExtractSettings, launch: Launch) -> ExtractSettings:
    """The settings with this process's own device. Raises InvalidInputError for an engine that is not local as well."""
    if launch.world_size == 1:
        return settings
    if settings.engine != "local":
        raise InvalidInputError(f"engine is {settings.engine!r} in one of {launch.world_size} processes; choose either")
    return settings.model_copy(update={"device": own_device(settings.device)})


class LocalBlocks:
    """The work on blocks in this process, alone or as one of torchrun's, and in a Dask worker on the blocks that it is
    dealt. `begin` gives it the job, the segment, and `fresh`, which draws some samples of each block again. Where a
    GPU's memory runs out, its batches halve from that block on. `place` names the process."""

    job: Job
    segment: Segment
    fresh: FreshDraws | None
    memory_bound: int | None = None

    def __init__(
        self,
        settings: ExtractSettings,
        *,
        progress: Progress = silent,
        stop: StopRequest | None = None,
        launch: Launch = ALONE,
        place: str = THIS_PROCESS,
    ) -> None:
        self.settings, self.stop = settings, stop or StopRequest()
        self._progress, self._launch = progress, launch
        self.place = place
        self.engine: Engine = LOCAL

    def require_fit(self, job: Job) -> None:
        """Nothing to check: this process has built the job itself."""

    def begin(self, job: Job, segment: Segment, fresh: FreshDraws | None = None) -> None:
        self.job, self.segment, self.fresh = job, segment, fresh
        if self._launch.world_size > 1:
            self.engine = RankEngine(self._launch, segment.layout.blocks, segment.uncommitted, self._progress)
        self.memory_bound = peak_rss_bytes() + self.extractor.memory.total

    @property
    def memory_peak(self) -> int | None:
        return peak_rss_bytes(children=True) if self.settings.workers else None

    @cached_property
    def extractor(self) -> BlockExtractor:
        return self.job.extractor(self.segment.layout)

    def halve(self) -> None:
        """Let batches have half the rows from now on."""
        self.job = replace(self.job, batch_rows=half(self.job.batch_rows))
        del self.extractor  # of the larger batches
        torch.cuda.empty_cache()

    @cached_property
    def dataset(self) -> ViewDataset:
        """The views, which a cache keeps where one is named."""
        return self.job.dataset.filling(filled_caches(self.job.data, self.job.identity, self.settings))

    @cached_property
    def earlier_contents(self) -> EarlierContents:
        return EarlierContents(self.segment, self.job.dataset)

    def draw(self, blocks: Sequence[int]) -> Generator[Drawn]:
        """The views of some blocks, in the order of their requests."""
        requests = (request for block in blocks for request in self.extractor.requests(block))
        return draw_requests(self.dataset, requests, self.settings.workers, self.settings.worker_start)

    @contextmanager
    def extracting(self, blocks: Sequence[int], *, adopt: bool, rows: RowProgress) -> Iterator["BlockStream"]:
        with naming_samples(self.job.data), closing(BlockStream(self, adopt, rows)) as stream, stream.writer:
            yield stream
        self.job.teacher.require_same_weights()


class BlockStream:
    """The function that extracts a block: it asks the teacher, and returns the future of the block's report, which a
    thread encodes and commits. The views of later blocks are drawn meanwhile: `expect` names all blocks beforehand."""

    def __init__(self, work: LocalBlocks, adopt: bool, rows: RowProgress) -> None:
        self._work, self._adopt, self._rows = work, adopt, rows
        self.writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kdcache-writer")
        self._blocks: Sequence[int] = ()
        self._drawing: Generator[Drawn] | None = None
        self._drawn_views: Iterator[Drawn] = iter(())
        self._answer_time: float | None = None
        self._waited_for_views = 0.0

    def expect(self, blocks: Sequence[int]) -> None:
        """Begin to draw the views of these blocks."""
        self._answer_time = None
        self._draw(blocks)
        self._rows.begin(rows_of(self._work.segment, blocks))

    def close(self) -> None:
        """End the processes that draw."""
        self._drawn_views = iter(())  # it holds this object
        if self._drawing is not None:
            self._drawing.close()

    def __call__(self, block: int) -> Future[BlockReport]:
        work = self._work
        waited_for_writer = 0.0 if self._answer_time is None else time.monotonic() - self._answer_time
        self._waited_for_views = 0.0
        if (commit := work.segment.find_commit(block)) is not None:  # by another writer
            for _ in islice(self._drawn_views, sum(1 for _ in work.extractor.requests(block))):
                pass
            report = BlockReport("", commit, work.job.batch_rows, waited_for_writer, self._waited_for_views)
            future = self.writer.submit(lambda: report)
        else:
            if work.fresh is not None:
                work.fresh.ask_block(work.segment.layout, block)
            answer = self._ask(block)
            future = self.writer.submit(self._write, answer, waited_for_writer, self._waited_for_views)
        self._answer_time = time.monotonic()
        if self._blocks and block == self._blocks[-1]:  # nothing is left to draw
            self.close()
        return future

    def _draw(self, blocks: Sequence[int]) -> None:
        self.close()
        self._blocks, self._drawing = blocks, self._work.draw(blocks)
        self._drawn_views = self._watched(self._drawing)

    def _ask(self, block: int) -> BlockAnswer:
        """The answer to a block; where a GPU's memory runs out, in batches of half the rows. Raises InvalidInputError
        where that of the machine does, or batches have the fewest rows already."""
        work = self._work
        while True:
            rows = work.job.batch_rows
            with naming_memory(*memory_words(work.place, rows)):
                try:
                    return work.extractor.ask(block, self._drawn_views)
                except torch.OutOfMemoryError:
                    if rows == GROUP:
                        raise
            work.halve()
            self._draw(self._blocks[list(self._blocks).index(block) :])  # what was drawn of it has been asked

    def _write(self, answer: BlockAnswer, waited_for_writer: float, waited_for_views: float) -> BlockReport:
        work, layout = self._work, self._work.segment.layout
        arrays, counts = work.extractor.encode(answer)
        if work.fresh is not None:
            work.fresh.require_block(layout, answer.block, answer.pixels, answer.contents, answer.struck)
        if "contents" in arrays:
            work.earlier_contents.require_same(answer.block, answer.contents)
        commit = work.segment.commit(
            answer.block,
            arrays=arrays,
            counts=counts,
            provenance=work.job.provenance,
            adopt=self._adopt,
            struck=answer.struck,
            ids=work.job.id_sums(*layout.block_rows(answer.block)),
        )
        return BlockReport("", commit, work.job.batch_rows, waited_for_writer, waited_for_views)

    def _watched(self, drawing: Iterator[Drawn]) -> Iterator[Drawn]:
        """The same views, batch by batch; rows are counted, idle seconds noted, and a request to stop is looked for."""
        wait_start = time.monotonic()
        for batch in drawing:
            self._waited_for_views += time.monotonic() - wait_start
            self._work.stop.check(RESUME)
            self._rows.add_drawn(batch.pixels.size)
            yield batch  # after its progress: the caller asks for no more after the last batch
            wait_start = time.monotonic()
