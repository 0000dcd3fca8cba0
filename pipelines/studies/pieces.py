"""Pieces of a study are runs and stores, named by what they are: what is there already is not made again."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from kdcache.base.progress import Progress, StopRequest, silent
from kdcache.base.records import validated
from kdcache.pipelines.command_lines import command_line
from kdcache.pipelines.compare.comparison import Comparison
from kdcache.pipelines.compare.settings import CompareSettings
from kdcache.pipelines.settings import ExtractSettings, TrainSettings
from kdcache.pipelines.studies.jobs import ADVICE, Train, groups_of, train_all
from kdcache.pipelines.sweep.names import NAMELESS
from kdcache.places.opening import open_place
from kdcache.store.seals import sealed_ids
from kdcache.training.run_folder import epochs_done, file_digest
from kdcache.views.draw import one_thread

CODE = ("data", "transform", "student", "teacher")  # settings that may name a file of code
VERSIONS = {name: version(name) for name in ("kdcache", "torch")}
ALIKE = NAMELESS - {"keep_epochs"}  # settings that change nothing of a piece


@dataclass(frozen=True)
class Stages:
    """The stages that make and measure pieces: `train_together`, `extract` and `compare`."""

    train: Train
    extract: Callable[..., Any]
    compare: Callable[[CompareSettings], Comparison]


@dataclass
class Pieces:
    """The pieces in a folder. dry: nothing is made, `commands` alone are noted. made, present: stores and runs.
    rows_asked: rows that teachers were asked for, (position, view) pairs. cpu_seconds: of other processes that trained.
    data_digest: of both splits' identities."""

    folder: Path
    stages: Stages
    data_digest: str = ""
    jobs: int = 1
    dry: bool = False
    progress: Progress = silent
    stop: StopRequest = field(default_factory=StopRequest)
    commands: list[str] = field(default_factory=list)
    made: int = 0
    present: int = 0
    rows_asked: int = 0
    cpu_seconds: float = 0.0

    def train(self, label: str, trainings: Sequence[dict[str, Any]]) -> list[str]:
        """Train runs that are not there yet, and return the folder of each. Raises the first error of a run, and
        InterruptedRunError once a stop is requested."""
        settings = [self._run(values) for values in trainings]
        runs = {run.run: run for run in settings}
        self.note(*(command_line("train", "run", run) for run in runs.values()))
        missing = [] if self.dry else [run for run in runs.values() if not _is_trained(run)]
        self.present += len(runs) - len(missing)
        done = len(runs) - len(missing)
        for trained in train_all(self.stages.train, groups_of(missing, self.jobs), self.jobs, self.stop):
            done += trained.runs
            self.made += trained.runs
            self.cpu_seconds += trained.cpu_seconds
            self.progress(label, done, len(runs))
        return [run.run for run in settings]

    def extract(self, label: str, extractions: Sequence[dict[str, Any]]) -> list[str]:
        """Extract stores that are not there yet, and return the path of each."""
        settings = [self._store(values) for values in extractions]
        for number, store in enumerate(settings):
            self.note(command_line("extract", "store", store))
            if self.dry:
                continue
            self.stop.check(ADVICE)
            if Path(store.store).exists() and sealed_ids(open_place(store.store)):
                self.present += 1
            else:
                with one_thread():
                    summary = self.stages.extract(store, stop=self.stop)
                self.made, self.rows_asked = self.made + 1, self.rows_asked + summary.rows
            self.progress(label, number + 1, len(settings))
        return [store.store for store in settings]

    def compare(self, settings: CompareSettings) -> Comparison | None:
        """Hold runs against a store; None where nothing is made."""
        self.note(command_line("compare", "runs", settings))
        if self.dry:
            return None
        with one_thread():
            return self.stages.compare(settings)

    def _run(self, values: dict[str, Any]) -> TrainSettings:
        values = {"workers": 0, "val_epochs": 0, **values}
        settings = cast("TrainSettings", validated(TrainSettings, "training of a study", run="run", **values))
        return settings.model_copy(update={"run": self._name("runs", settings, {"run", *ALIKE})})

    def _store(self, values: dict[str, Any]) -> ExtractSettings:
        values = {"workers": 0, **values}
        settings = cast("ExtractSettings", validated(ExtractSettings, "extraction of a study", store="store", **values))
        return settings.model_copy(update={"store": f"{self._name('stores', settings, {'store', *ALIKE})}.kd"})

    def _name(self, kind: str, settings: TrainSettings | ExtractSettings, without: set[str]) -> str:
        """A piece's folder: a digest of its settings, without folders of this machine above the study's, of what their
        files hold, and of versions: data, weights, defaults, code and libraries that change make other pieces."""
        values = settings.model_dump(mode="json", exclude=without)
        parts = [type(settings).__name__, values, self.data_digest, VERSIONS, *contents_of(values)]
        text = json.dumps(parts, sort_keys=True).replace(f"{self.folder}/", "")
        return (self.folder / kind / hashlib.sha256(text.encode()).hexdigest()[:8]).as_posix()

    def note(self, *commands: str) -> None:
        """Note commands that make or measure pieces, each once."""
        self.commands += [command for command in dict.fromkeys(commands) if command not in self.commands]


def _is_trained(settings: TrainSettings) -> bool:
    return epochs_done(Path(settings.run)) == settings.epochs


def contents_of(values: dict[str, Any]) -> list[str]:
    """sha256 of the weights file, and of the files of code, that a piece's settings name."""
    paths = [str(values.get("weights") or "").partition("#")[0]]
    paths += [_code_file(str(values.get(name) or "").rpartition(":")[0]) for name in CODE]
    return [file_digest(Path(path)) for path in paths if path and Path(path).is_file()]


def _code_file(place: str) -> str:
    """The file of a module that is named by its dotted path, or else the place itself."""
    if "." not in place or Path(place).is_file():
        return place
    try:
        spec = find_spec(place)
    except ModuleNotFoundError:
        return place
    return (spec.origin or "") if spec is not None else place
