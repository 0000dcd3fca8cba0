"""Pieces of a study are runs and stores, named by what they are: what is there already is not made again."""

import hashlib
import json
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, cast

import torch

from kdcache.base.progress import Progress, StopRequest, silent
from kdcache.base.records import validated
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import ExtractSettings, TrainSettings
from kdcache.pipelines.studies.command_lines import command_line
from kdcache.pipelines.sweep.names import NAMELESS
from kdcache.pipelines.train.shared_settings import unequal_settings
from kdcache.pipelines.train.together import train_together
from kdcache.places.opening import open_place
from kdcache.store.seals import sealed_ids
from kdcache.training.run_folder import epochs_done

ADVICE = "run the same command again to go on"
TOGETHER = 16  # students that share a stream
ALIKE = NAMELESS - {"keep_epochs"}  # settings that change nothing of a piece


@dataclass
class Pieces:
    """The pieces in a folder. dry: nothing is made, `commands` alone are noted. made, present: stores and runs."""

    folder: Path
    jobs: int = 1
    dry: bool = False
    progress: Progress = silent
    stop: StopRequest = field(default_factory=StopRequest)
    commands: list[str] = field(default_factory=list)
    made: int = 0
    present: int = 0
    rows_asked: int = 0

    def train(self, label: str, trainings: Sequence[dict[str, Any]]) -> list[str]:
        """Train runs that are not there yet, and return the folder of each. Raises the first error of a run, and
        InterruptedRunError once a stop is requested."""
        settings = [self._run(values) for values in trainings]
        runs = {each.run: each for each in settings}
        self.note(*(command_line("train", "run", each) for each in runs.values()))
        missing = [] if self.dry else [each for each in runs.values() if not _is_trained(each)]
        self.present += len(runs) - len(missing)
        done = len(runs) - len(missing)
        for count in _train_all(_groups(missing, self.jobs), self.jobs, self.stop):
            done += count
            self.made += count
            self.progress(label, done, len(runs))
        return [each.run for each in settings]

    def extract(self, label: str, extractions: Sequence[dict[str, Any]]) -> list[str]:
        """Extract stores that are not there yet, and return the path of each."""
        settings = [self._store(values) for values in extractions]
        for number, each in enumerate(settings):
            self.note(command_line("extract", "store", each))
            if self.dry:
                continue
            self.stop.check(ADVICE)
            if Path(each.store).exists() and sealed_ids(open_place(each.store)):
                self.present += 1
            else:
                with one_thread():
                    summary = extract(each, stop=self.stop)
                self.made, self.rows_asked = self.made + 1, self.rows_asked + summary.rows * len(each.views)
            self.progress(label, number + 1, len(settings))
        return [each.store for each in settings]

    def _run(self, values: dict[str, Any]) -> TrainSettings:
        values = {"workers": 0, "val_epochs": 0, **values}
        run = self._name("runs", TrainSettings, values)
        return cast("TrainSettings", validated(TrainSettings, "training of a study", run=run, **values))

    def _store(self, values: dict[str, Any]) -> ExtractSettings:
        values = {"workers": 0, **values}
        name = self._name("stores", ExtractSettings, values)
        return cast(
            "ExtractSettings", validated(ExtractSettings, "extraction of a study", store=f"{name}.kd", **values)
        )

    def _name(self, kind: str, model: type, values: dict[str, Any]) -> str:
        """A piece's folder: a digest of its settings as written, without folders of this machine above the study's."""
        named = {name: value for name, value in values.items() if name not in ALIKE}
        text = json.dumps([model.__name__, named], sort_keys=True, default=str).replace(f"{self.folder}/", "")
        return (self.folder / kind / hashlib.sha256(text.encode()).hexdigest()[:8]).as_posix()

    def note(self, *commands: str) -> None:
        """Note commands that make or measure pieces, each once."""
        self.commands += [command for command in dict.fromkeys(commands) if command not in self.commands]


def _is_trained(settings: TrainSettings) -> bool:
    return epochs_done(Path(settings.run)) == settings.epochs


def _groups(settings: Sequence[TrainSettings], jobs: int) -> list[list[TrainSettings]]:
    """Groups that share a stream, small enough that every process has one."""
    largest = max(1, min(TOGETHER, -(-len(settings) // jobs)))
    groups: list[list[TrainSettings]] = []
    for each in settings:
        for group in groups:
            if len(group) < largest and not unequal_settings([group[0], each]):
                group.append(each)
                break
        else:
            groups.append([each])
    return groups


def _train_all(groups: Sequence[list[TrainSettings]], jobs: int, stop: StopRequest) -> Iterator[int]:
    """Train groups in so many processes, one thread each, and yield the size of each that ends. With one job it is this
    process: bits do not depend on it."""
    if jobs == 1 or len(groups) < 2:
        for group in groups:
            stop.check(ADVICE)
            with one_thread():
                _train_group(group, stop)
            yield len(group)
        return
    context = get_context("spawn")
    stopping = context.Event()
    pool = ProcessPoolExecutor(min(jobs, len(groups)), context, initializer=_begin, initargs=(stopping,))
    try:
        sizes = {pool.submit(_train_group, group): len(group) for group in groups}
        pending = set(sizes)
        while pending:
            stop.check(ADVICE)
            ended, pending = wait(pending, timeout=1.0, return_when=FIRST_COMPLETED)
            for future in ended:
                future.result()
                yield sizes[future]
    finally:
        stopping.set()
        pool.shutdown(cancel_futures=True)


_stop = StopRequest()  # of a worker


def _begin(stopping: Event) -> None:
    """Begin a worker: it has one thread for torch, and stops when the study's process says so, not at a Ctrl-C."""

    def listen() -> None:
        stopping.wait()
        _stop.requested = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=listen, daemon=True).start()
    torch.set_num_threads(1)


def _train_group(group: list[TrainSettings], stop: StopRequest | None = None) -> None:
    for outcome in train_together(group, stop=stop or _stop):
        if outcome.error is not None:
            raise outcome.error


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of torch's, whatever the machine has: small networks are faster so, and their bits stay."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)
