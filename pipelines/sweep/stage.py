"""A sweep trains many points from one file, each in a folder; done points are skipped, failed ones stop nothing."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kdcache.base.devices import visible_gpus
from kdcache.base.engine import LOCAL, Engine
from kdcache.base.engine_settings import EngineSettings
from kdcache.base.folder_lock import HOLDER, LOCK, held
from kdcache.base.local_cluster import DASHBOARD
from kdcache.base.open_engine import open_engine
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
from kdcache.pipelines.train.together import train_together

LOOK_SECONDS = 1.0  # between two looks at the folders in which workers write
ADVICE = "run the same command again to go on"
PRELOAD = ("kdcache.pipelines.sweep.stage",)
Errors = dict[str, str]
Group = list[Point]
GroupSettings = tuple[TrainSettings, ...]
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


def sweep(
    path: str | Path,
    *,
    folder: str = "",
    together: int = 1,
    engine: EngineSettings | None = None,
    report: Report = no_report,
    progress: Progress = silent,
    stop: StopRequest | None = None,
) -> SweepSummary:
    """Train every point of a sweep's file that is not done yet, and write results.csv to its folder, of which
    `kdcache compare FOLDER` makes a report. `together` points train side by side on one stream, in this process or in
    each of the engine's workers, which start once all points were checked.

    All points are checked before the first is trained. Raises InvalidInputError or MismatchError for the first point
    with a fault, InvalidInputError for a folder that another process holds, and InterruptedRunError once `stop` is
    requested; the error of a point that fails is in its row.
    """
    engine, stop = engine or EngineSettings(), stop or StopRequest()
    start_time = time.monotonic()
    file, checker = load_sweep(path), Checker()
    if together < 1:
        raise InvalidInputError(f"together is {together}; give 1 or more")
    sweep_folder = _sweep_folder(file, folder, path)
    if engine.engine != "local":
        sweep_folder = sweep_folder.resolve()  # workers may have another working folder

    def make(swept: dict[str, Any]) -> Point:
        return make_point(file, swept, sweep_folder)

    points = list(corners(file, sweep_folder)) if file.study else points_of(file, sweep_folder)
    if file.study:
        require_optuna(file.study)
        require_measured(points[0].settings, file.study.metric)
    epochs_done = checker.check(points, progress, stop)
    table = ResultTable(sweep_folder / "results.csv", file.swept, checker, report)
    trainer = Trainer(together, table, stop)
    try:
        with held(sweep_folder):
            study = Study.open(file.study, sweep_folder) if file.study else None
            write_whole(sweep_folder / "sweep.toml", Path(path).read_bytes())
            with open_engine(
                engine, gpus=visible_gpus, dashboard=DASHBOARD, preload=PRELOAD, progress=progress
            ) as trainer.engine:
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
        self.engine: Engine = LOCAL
        self.note = ""

    @property
    def capacity(self) -> int:
        """The number of points that can be trained at the same time."""
        return self._together * self.engine.workers

    def train(self, points: Sequence[Point]) -> None:
        """Train some points, each from where its folder stands."""
        groups = group_points(points, self._together)
        if len(groups) > -(-len(points) // self._together):
            names = ", ".join(unequal_settings([point.settings for point in points]))
            self.note = f"{len(points)} points in {len(groups)} groups: only students of equal {names} share a stream"
        by_run = {group[0].settings.run: group for group in groups}
        dealt, last_look = dict[str, Group](), time.monotonic()

        def deal() -> Iterator[GroupSettings]:
            for run, group in by_run.items():
                dealt[run] = group
                yield tuple(point.settings for point in group)

        def poll() -> None:
            nonlocal last_look
            self._stop.check(ADVICE)
            if time.monotonic() - last_look > LOOK_SECONDS:
                self._table.refresh([point for group in dealt.values() for point in group])
                last_look = time.monotonic()

        training = GroupTraining(by_run, self._table, self._stop)
        for item, outcome in self.engine.each(training, deal(), ahead=1, retries=0, poll=poll):
            if isinstance(outcome, Exception):  # the whole group failed
                outcome = {settings.run: error_text(outcome) for settings in item}
            self._mark_done(dealt.pop(item[0].run), outcome)

    def _mark_done(self, group: list[Point], errors: Errors) -> None:
        names = {point.settings.run: point.name for point in group}
        self._table.mark(group, "done", {names[run]: text for run, text in errors.items()})


class GroupTraining:
    """The training of one group, which shows in the table and hears a stop. A copy of it that travels to a worker does
    neither: there the folders of the runs tell. The result is errors by run folder, as text, for not every exception
    can be pickled."""

    def __init__(
        self,
        groups: Mapping[str, Group] | None = None,
        table: ResultTable | None = None,
        stop: StopRequest | None = None,
    ) -> None:
        self._groups, self._table, self._stop = groups or {}, table, stop

    def __reduce__(self) -> tuple[type["GroupTraining"], tuple[()]]:
        return GroupTraining, ()

    def __call__(self, settings: GroupSettings) -> Errors:
        group = self._groups.get(settings[0].run, [])
        if self._table is not None:
            self._table.mark(group, "running")
        outcomes = train_together(settings, progress=partial(self._step, group), stop=self._stop)
        return {outcome.settings.run: error_text(outcome.error) for outcome in outcomes if outcome.error is not None}

    def _step(self, group: Group, activity: str, steps: int, total: int) -> None:
        if self._table is not None:
            self._table.step(group, steps, total)


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


def _sweep_folder(file: SweepFile, folder: str, path: str | Path) -> Path:
    name = folder or file.folder
    if not name:
        raise InvalidInputError(f'{path} names no folder; write folder = "runs/sweep" at its head, or give --folder')
    sweep_folder = Path(name)
    if sweep_folder.exists() and not (sweep_folder / "sweep.toml").exists() and not _is_empty(sweep_folder):
        raise InvalidInputError(f"{sweep_folder} is there and holds no sweep; choose another folder")
    return sweep_folder


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
