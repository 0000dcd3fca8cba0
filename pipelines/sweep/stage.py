"""A sweep trains many points from one file, each in a folder; done points are skipped, failed ones stop nothing."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kdcache.base.folder_lock import HOLDER, LOCK, held
from kdcache.base.progress import Progress, StopRequest, silent
from kdcache.base.records import Record
from kdcache.base.user_code import place_of
from kdcache.base.whole_files import TEMPORARY, write_whole
from kdcache.errors import InterruptedRunError, InvalidInputError, KdcacheError
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.sweep.check import Checker, require_measured
from kdcache.pipelines.sweep.result_table import Report, ResultTable, no_report
from kdcache.pipelines.sweep.results import Result
from kdcache.pipelines.sweep.space import Point, SweepFile, corners, load_sweep, make_point, points_of
from kdcache.pipelines.sweep.study import Study, require_optuna
from kdcache.pipelines.train.shared_settings import unequal_settings
from kdcache.pipelines.train.together import Outcome, train_together

LOOK_SECONDS = 1.0  # between two looks at the folders in which workers write
ADVICE = "run the same command again to go on"
Errors = dict[str, str]
Make = Callable[[dict[str, Any]], Point]


class SweepSummary(Record):
    """The summary that `kdcache sweep` prints at its end. `present` counts points that were done before. `note` says
    why fewer students than asked shared a stream. `best` is the point of highest accuracy, or a study's best."""

    folder: str
    points: int
    done: int
    present: int
    failed: int
    seconds: float
    best: str | None
    note: str
    results: str
    rows: tuple[Result, ...]


class Workers(Protocol):
    """The part of `kdcache.base.cluster.Cluster` that a sweep uses: a function on items, at most `ahead` a worker at a
    time."""

    client: Any

    @property
    def dashboard_text(self) -> str: ...

    def each(
        self, function: Callable[[Any], Any], items: Any, *, ahead: int, retries: int, poll: Callable[[], None]
    ) -> Iterator[tuple[Any, Any]]: ...


@dataclass(frozen=True)
class Engine:
    """The engine trains points: `together` of them side by side on one stream, in this process or on the workers of
    `cluster`, which is opened once all points were checked."""

    together: int = 1
    cluster: Callable[[], AbstractContextManager[Workers]] | None = None

    @contextmanager
    def opened(self) -> Iterator[Workers | None]:
        with self.cluster() if self.cluster else nullcontext() as workers:
            yield workers


def sweep(
    path: str | Path,
    *,
    folder: str = "",
    engine: Engine | None = None,
    report: Report = no_report,
    progress: Progress = silent,
    stop: StopRequest | None = None,
) -> SweepSummary:
    """Train every point of a sweep's file that is not done yet, and write results.csv to its folder, of which
    `kdcache compare FOLDER` makes a report.

    All points are checked before the first is trained. Raises InvalidInputError or MismatchError for the first point
    with a fault, InvalidInputError for a folder that another process holds, and InterruptedRunError once `stop` is
    requested; the error of a point that fails is in its row.
    """
    engine, stop = engine or Engine(), stop or StopRequest()
    start_time = time.monotonic()
    file, checker = load_sweep(path), Checker()
    sweep_folder = _sweep_folder(file, folder, path, engine)

    def make(swept: dict[str, Any]) -> Point:
        return make_point(file, swept, sweep_folder)

    points = list(corners(file, sweep_folder)) if file.study else points_of(file, sweep_folder)
    if file.study:
        require_optuna(file.study)
        require_measured(points[0].settings, file.study.metric)
    epochs_done = checker.check(points, progress, stop)
    table = ResultTable(sweep_folder / "results.csv", file.swept, checker, report)
    trainer = Trainer(engine.together, table, stop)
    try:
        with held(sweep_folder):
            study = Study.open(file.study, sweep_folder) if file.study else None
            write_whole(sweep_folder / "sweep.toml", Path(path).read_bytes())
            with engine.opened() as trainer.workers:
                if trainer.workers is not None:
                    progress(f"dask workers, dashboard {trainer.workers.dashboard_text}", 1, 1)
                if study is None:
                    table.add(points, epochs_done)
                    present_count = sum(result.status == "done" for result in table.results)
                    trainer.train([point for point in points if epochs_done[point.name] < point.settings.epochs])
                else:
                    present_count = _search(study, make, checker, table, trainer, stop)
    except InterruptedRunError as error:
        table.mark_stopped()
        done_count = sum(result.status == "done" for result in table.results)
        raise InterruptedRunError(
            f"stopped as asked; {done_count} of {len(table.results)} points are done; {ADVICE}"
        ) from error
    best = _best(table.results)
    if study:
        best = None if study.best is None else make(study.best).name
    return SweepSummary(
        folder=str(sweep_folder),
        points=len(table.results),
        done=sum(result.status == "done" for result in table.results),
        present=present_count,
        failed=sum(result.status == "failed" for result in table.results),
        seconds=time.monotonic() - start_time,
        best=best,
        note=trainer.note,
        results=str(sweep_folder / "results.csv"),
        rows=table.results,
    )


class Trainer:
    """The trainer trains points in groups that can share a stream; errors are noted in the table and stop nothing."""

    def __init__(self, together: int, table: ResultTable, stop: StopRequest) -> None:
        self._together, self._table, self._stop = together, table, stop
        self.workers: Workers | None = None
        self.note = ""

    @property
    def capacity(self) -> int:
        """The number of points that can be trained at the same time."""
        return self._together * (1 if self.workers is None else max(len(self.workers.client.nthreads()), 1))

    def train(self, points: Sequence[Point]) -> None:
        """Train some points, each from where its folder stands."""
        groups = group_points(points, self._together)
        if len(groups) > -(-len(points) // self._together):
            names = ", ".join(unequal_settings([point.settings for point in points]))
            self.note = f"{len(points)} points in {len(groups)} groups: only students of equal {names} share a stream"
        if self.workers is None:
            for group in groups:
                self._stop.check(ADVICE)
                self._train_here(group)
        else:
            self._train_on_workers(groups, self.workers)

    def _train_here(self, group: list[Point]) -> None:
        self._table.mark(group, "running")
        settings = [point.settings for point in group]
        outcomes = train_together(
            settings, progress=lambda activity, steps, total: self._table.step(group, steps, total), stop=self._stop
        )
        self._mark_done(group, _errors_by_run(outcomes))

    def _train_on_workers(self, groups: list[list[Point]], workers: Workers) -> None:
        by_key = {tuple(point.settings.run for point in group): group for group in groups}
        items = [tuple(point.settings for point in group) for group in groups]
        unfinished_groups, last_look = list(groups), 0.0

        def poll() -> None:
            nonlocal last_look
            self._stop.check(ADVICE)
            if time.monotonic() - last_look > LOOK_SECONDS:
                self._table.refresh([point for group in unfinished_groups for point in group])
                last_look = time.monotonic()

        for item, outcome in workers.each(train_group, items, ahead=1, retries=0, poll=poll):
            group = by_key[tuple(settings.run for settings in item)]
            unfinished_groups.remove(group)
            if isinstance(outcome, Exception):  # the whole group failed
                outcome = {settings.run: error_text(outcome) for settings in item}
            self._mark_done(group, outcome)

    def _mark_done(self, group: list[Point], errors: Errors) -> None:
        names = {point.settings.run: point.name for point in group}
        self._table.mark(group, "done", {names[run]: text for run, text in errors.items()})


def train_group(settings: tuple[TrainSettings, ...]) -> Errors:
    """Train one group on a worker. Returns errors by run folder, as text: not every exception can be pickled."""
    return _errors_by_run(train_together(settings))


def _errors_by_run(outcomes: Sequence[Outcome]) -> Errors:
    return {outcome.settings.run: error_text(outcome.error) for outcome in outcomes if outcome.error is not None}


def group_points(points: Sequence[Point], together: int) -> list[list[Point]]:
    """Groups of at most `together` points that can share a stream, in the order of their first points."""
    groups: list[list[Point]] = []
    for point in points:
        for group in groups:
            if len(group) < together and not unequal_settings([group[0].settings, point.settings]):
                group.append(point)
                break
        else:
            groups.append([point])
    return groups


def error_text(error: Exception) -> str:
    """The text of an error in a row; the kind of an error that is not kdcache's comes first."""
    if type(error).__module__.startswith("kdcache."):
        return str(error)
    place = place_of(error)
    return f"{type(error).__name__}: {error}" + (f" ({place.file}, line {place.line})" if place else "")


def _sweep_folder(file: SweepFile, folder: str, path: str | Path, engine: Engine) -> Path:
    name = folder or file.folder
    if not name:
        raise InvalidInputError(f'{path} names no folder; write folder = "runs/sweep" at its head, or give --folder')
    if engine.together < 1:
        raise InvalidInputError(f"together is {engine.together}; give 1 or more")
    sweep_folder = Path(name)
    if sweep_folder.exists() and not (sweep_folder / "sweep.toml").exists() and not _is_empty(sweep_folder):
        raise InvalidInputError(f"{sweep_folder} is there and holds no sweep; choose another folder")
    return sweep_folder.resolve() if engine.cluster else sweep_folder  # workers may have another working folder


def _is_empty(folder: Path) -> bool:
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else [""]
    return all(name in (LOCK, HOLDER) or name.startswith(TEMPORARY) for name in names)


def _search(study: Study, make: Make, checker: Checker, table: ResultTable, trainer: Trainer, stop: StopRequest) -> int:
    """Train the trials that a study proposes until it has all. Returns the count of trials that had ended before."""
    present_count = study.ended
    past_points = {number: make(swept) for number, swept in study.past().items()}
    points = {point.name: point for point in past_points.values()}
    table.add(list(points.values()), {name: point.settings.epochs for name, point in points.items()}, study.trials)
    failures = {past_points[number].name: error for number, error in study.failures.items()}
    table.mark([points[name] for name in failures], "failed", failures)
    while proposals := study.ask(trainer.capacity):
        trials = {number: make(swept) for number, swept in proposals.items()}
        new_points = {point.name: point for point in trials.values()}
        epochs_done, faults = _check_points(new_points, checker, stop)
        table.add(list(new_points.values()), epochs_done, study.trials)
        table.mark([new_points[name] for name in faults], "failed", faults)
        usable_points = [new_points[name] for name in epochs_done]
        trainer.train([point for point in usable_points if epochs_done[point.name] < point.settings.epochs])
        rows = {result.point: result for result in table.results}
        for number, point in trials.items():
            study.tell(number, rows[point.name])
    return present_count


def _check_points(points: dict[str, Point], checker: Checker, stop: StopRequest) -> tuple[dict[str, int], Errors]:
    """Epochs done and faults, by point name. Choices that are possible alone may be impossible together in a trial."""
    epochs_done: dict[str, int] = {}
    faults: Errors = {}
    for name, point in points.items():
        try:
            epochs_done |= checker.check([point], silent, stop)
        except InterruptedRunError:
            raise
        except KdcacheError as error:
            faults[name] = str(error)
    return epochs_done, faults


def _best(results: Sequence[Result]) -> str | None:
    candidates = [result for result in results if result.status == "done" and result.accuracy is not None]
    return max(candidates, key=lambda result: result.accuracy or 0.0).point if candidates else None
