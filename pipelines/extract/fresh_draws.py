"""Samples are drawn again by a fresh process while an extraction goes on: no block is committed before some of its own
were, and were the same. Counters, caches, time and whatever else differs from process to process show there."""

import copy
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, Protocol

import numpy as np

from kdcache.base.arrays import Array, IntArray
from kdcache.base.memory import available_bytes, resident_bytes
from kdcache.base.records import require_equal
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError, KdcacheError, ReplayError
from kdcache.networks.checks import probe_positions
from kdcache.pipelines.extract.fresh_forks import SERVED, FreshForks, forked_at, fresh_environment
from kdcache.pipelines.extract.fresh_process import Channel, Fingerprints, Opened, Question, Streams, serve
from kdcache.pipelines.extract.fresh_rows import chosen_rows
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.layout import SegmentLayout
from kdcache.store.manifest import Identity
from kdcache.views.draw import ViewDataset
from kdcache.views.view_stack import ViewRequest
from kdcache.views.workers import outlive_signals

JOIN_SECONDS = 5.0
BEGIN = "begin"
ADVICE = (
    "something besides the sample and the global generators of torch, random and numpy decides (a counter, a cache, "
    "the time, a file, a worker's number)"
)
NEXT = "it is not stored: mend that, and extract to a new store"


class DrawnJob(Protocol):
    """The part of a job that is drawn again."""

    @property
    def identity(self) -> Identity: ...

    @property
    def order(self) -> IntArray: ...

    @property
    def views(self) -> ViewSpan: ...

    @property
    def dataset(self) -> ViewDataset: ...

    def sample_name(self, position: int) -> str: ...


Launch = Callable[[], tuple[Channel, Callable[[], None]]]
"""Starts a fresh process; returns the channel to it, and what ends it."""


def start_process() -> tuple[Channel, Callable[[], None]]:
    """Start a fresh interpreter, which imports in the background. It ends with this process, however that ends."""
    code = f"from kdcache.pipelines.extract.fresh_process import main; main({sys.path!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"],
        env=fresh_environment(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is this process's to answer
    )  # fmt: skip

    def end() -> None:
        process.kill()
        process.wait(JOIN_SECONDS)
        for stream in (process.stdin, process.stdout):
            with suppress(OSError):
                assert stream is not None
                stream.close()

    return Streams(process.stdout, process.stdin), end


launch: Launch = start_process


def start_forked(job: DrawnJob) -> tuple[Channel, Callable[[], None]]:
    """Fork a process, which has this one's data set and transform; for those that cannot be opened twice."""
    return start_in("fork", _serve_forked, job)


def start_in(method: str, serve: Callable[..., None], *arguments: Any) -> tuple[Channel, Callable[[], None]]:
    """Start a process by a method of `multiprocessing`, which runs `serve(channel, *arguments)`; returns this side of
    the channel, and what ends the process. It ends with this one."""
    context: Any = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()

    def end() -> None:
        process.kill()
        process.join(JOIN_SECONDS)
        ours.close()

    return ours, end


def _serve_forked(channel: Channel, job: DrawnJob) -> None:
    outlive_signals()
    dataset = copy.copy(job.dataset)
    serve(channel, lambda settings: (dataset, Opened(job.identity.dataset, job.identity.plan)))


class FreshDraws:
    """A fresh process, and the questions that it was asked; it answers them in their order. One thread may ask while
    another waits for answers. `rows` counts (position, view) pairs that were drawn again.

    The process is started, or forked at `address`, as `FreshForks` does. With `serves` other processes of this machine
    may have theirs from there too, by this one's `address`; "" where none are forked.
    """

    def __init__(self, settings: ExtractSettings, *, address: str = "", serves: bool = False) -> None:
        self.settings, self.rows, self.notes = settings, 0, tuple[str, ...]()
        self._answers: dict[object, dict[int, Fingerprints | KdcacheError]] = {}
        self._asked: list[object] = []
        self._lock = threading.Lock()
        self._forks: FreshForks | None = None
        if serves and SERVED and launch is start_process:
            with suppress(OSError):  # a path may be too long for a socket
                self._forks = FreshForks()
        self.address = address if self._forks is None else self._forks.address
        self._channel, self._end = self._start()

    def _start(self) -> tuple[Channel, Callable[[], None]]:
        if self.address:
            with suppress(OSError):  # it may be gone, which forks
                return forked_at(self.address)
        return launch()

    def __enter__(self) -> "FreshDraws":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def leave(self) -> None:
        """End the process; others may be forked at `address` still."""
        self._end()

    def close(self) -> None:
        """End the process, and let no others be forked."""
        self.leave()
        if self._forks is not None:
            self._forks.close()

    def begin(self, job: DrawnJob) -> None:
        """Let the process open data set and transform, and ask for the views of some samples."""
        self.job = job
        if reason := _reason_to_fork(self.settings):
            self._end()
            self._channel, self._end = start_forked(job)
            self.notes = (f"samples were drawn again in a copy of this process and not in a fresh one: {reason}",)
        self._send(self.settings)
        self.ask(BEGIN, probe_positions(len(job.dataset.order)), self._first_views)

    @property
    def _last_rows(self) -> slice:
        """The last row of each sample: of a text its fingerprint covers all tokens."""
        sequence = self.job.dataset.sequence
        return slice(sequence - 1, None, sequence)

    @property
    def _first_views(self) -> ViewSpan:
        return ViewSpan(self.job.views.start, self.job.views.start + 2)

    def require_begin(self) -> None:
        """Raises MismatchError where the process opened something else, and as `require_block`."""
        opened = self._receive()
        if isinstance(opened, KdcacheError):
            raise _refusal("data set and transform open here and not in a fresh process, as in training", opened)
        headline = "a fresh process opens another data set or transform, by the same settings:"
        advice = "training elsewhere would too: give what is random there a seed, and sort what has no order"
        names, labels = ("this process", "a fresh one"), {"labels": ""}
        identity = self.job.identity.dataset.model_copy(update=labels)
        probes = {"probes": identity.probes}
        other = opened.identity.model_copy(update=labels)
        require_equal(identity, other.model_copy(update=probes), headline, advice, "dataset.", names=names)
        require_equal(self.job.identity.plan, opened.plan, headline, advice, "views.", names=names)
        positions = probe_positions(len(self.job.dataset.order))
        drawn = self.job.dataset[ViewRequest(self._first_views, positions)]
        kind, last = self.job.identity.encoding.contents, self._last_rows
        contents, unread = None if kind is None else drawn.contents[kind][last], positions[list(drawn.unread)].tolist()
        self._require_same(BEGIN, positions, self._first_views, drawn.pixels[:, last], contents, unread)
        require_equal(identity, other, headline, advice, "dataset.", names=names)  # after a sample that can be named

    def ask(self, name: object, positions: IntArray, views: ViewSpan) -> None:
        """Ask for some views of some positions, as `ViewRequest` counts them."""
        self._asked.append(name)
        self.rows += len(positions) * len(views)
        self._send(Question(positions, views, self.job.identity.encoding.kinds_of_contents))

    def ask_block(self, layout: SegmentLayout, block: int) -> None:
        """Ask for the samples of a block that are drawn again."""
        positions, views = chosen_rows(layout, block, self.job.identity.plan.seed)
        self.ask(block, np.unique(positions // self.job.dataset.sequence), views)

    def require_block(
        self, layout: SegmentLayout, block: int, pixels: Array, contents: Array, struck: Collection[int] = ()
    ) -> None:
        """Wait for the samples of a block, and compare `pixels` [V, R] and `contents` [R] of its rows. Raises
        ReplayError, naming a sample, for a difference; struck positions are left out."""
        sequence, last = self.job.dataset.sequence, self._last_rows
        start, stop = layout.block_rows(block)
        positions = np.arange(start // sequence, stop // sequence)
        _, views = chosen_rows(layout, block, self.job.identity.plan.seed)
        pixels = pixels[views.start - layout.views.start : views.stop - layout.views.start, last]
        has_contents = self.job.identity.encoding.contents is not None
        self._require_same(block, positions, views, pixels, contents[last] if has_contents else None, struck)

    def _require_same(
        self,
        name: object,
        positions: IntArray,
        views: ViewSpan,
        pixels: Array,
        contents: Array | None,
        struck: Collection[int] = (),
    ) -> None:
        """Compare `pixels` [V, R] of these views, and `contents` [R], with an answer."""
        answers = self._answer(name)
        for row, position in enumerate(positions.tolist()):
            if position not in answers or position in struck:
                continue
            again, sample = answers[position], self.job.sample_name(position * self.job.dataset.sequence)
            if isinstance(again, KdcacheError):
                raise _refusal("a fresh process cannot draw what this one drew", again)
            if contents is not None and int(contents[row]) not in again.contents.values():
                raise ReplayError(
                    f"{sample} is read otherwise by a fresh process than for the teacher: in the data set {ADVICE}; "
                    f"{NEXT}"
                )
            differing = np.flatnonzero(pixels[:, row] != np.asarray(again.pixels))
            if len(differing):
                view = views.start + int(differing[0])
                raise ReplayError(
                    f"view {view} of {sample} is drawn otherwise by a fresh process than for the teacher "
                    f"({len(differing)} of {len(pixels)} views differ): {ADVICE}; {NEXT}"
                )

    def _answer(self, name: object) -> "dict[int, Fingerprints | KdcacheError]":
        """The answer to a question; {} where none was asked."""
        with self._lock:
            while name not in self._answers:
                if name not in self._asked:
                    return {}
                self._answers[self._asked.pop(0)] = self._receive()
            return self._answers.pop(name)

    def _send(self, message: object) -> None:
        try:
            self._channel.send(message)
        except OSError as error:
            raise _ended() from error

    def _receive(self) -> Any:
        try:
            return self._channel.recv()
        except (EOFError, OSError) as error:
            raise _ended() from error


def _ended() -> InvalidInputError:
    return InvalidInputError(
        "the process that draws samples again has ended; memory may have run out: what was committed stays, and the "
        "same command goes on"
    )


def _refusal(problem: str, failure: KdcacheError) -> InvalidInputError:
    refusal = InvalidInputError(f"{problem}: {failure}")
    refusal.details = failure.details
    return refusal


def _reason_to_fork(settings: ExtractSettings) -> str:
    """Why the data set cannot be opened by a second process too; "" where it can."""
    if any(spec.startswith("__main__:") for spec in (settings.data, settings.transform)):
        return "they are defined in the main script"
    available, resident = available_bytes(), resident_bytes()
    if available is not None and resident is not None and resident > available:
        return f"memory is short: {resident:,} bytes are in use here, and {available:,} are left"
    return ""
