"""A sweep: many runs from one file, each in a folder of its own; what is done is skipped, what failed stops nothing."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kdcache.base.folder_lock import LOCK, held
from kdcache.base.progress import Progress, StopRequest, silent
from kdcache.base.records import Record
from kdcache.base.whole_files import write_whole
from kdcache.errors import InterruptedRunError, InvalidInputError, KdcacheError
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.sweep.board import Board, Report, unwatched
from kdcache.pipelines.sweep.check import Checker, require_measured
from kdcache.pipelines.sweep.pictures import draw
from kdcache.pipelines.sweep.results import Result
from kdcache.pipelines.sweep.space import Point, SweepFile, corners, load_sweep, make_point, points_of
from kdcache.pipelines.sweep.study import Study, require_optuna
from kdcache.pipelines.train.shared_settings import apart
from kdcache.pipelines.train.together import train_together

LOOK = 1.0  # seconds between two looks at what workers have written
AGAIN = "run the same command again to go on"
Errors = dict[str, str]
Make = Callable[[dict[str, Any]], Point]


class SweepSummary(Record):
    """What `kdcache sweep` says at its end. `present`: points that were done before; `note`: why fewer students than
    asked shared a stream; `best`: the point with the highest accuracy, or what a study calls the best."""

    folder: str
    points: int
    done: int
    present: int
    failed: int
    seconds: float
    best: str | None
    note: str
    results: str
    plots: tuple[str, ...]
    rows: tuple[Result, ...]


class Workers(Protocol):
    """What `kdcache.base.cluster.Cluster` offers: a function on items, at most `ahead` a worker at a time."""

    client: Any
    dashboard: str

    def each(
        self, function: Callable[[Any], Any], items: Any, *, ahead: int, retries: int, poll: Callable[[], None]
    ) -> Iterator[tuple[Any, Any]]: ...


@dataclass(frozen=True)
class Engine:
    """How points are trained: `together` side by side on one stream, in this process or on the workers of `cluster`,
    which is opened once all points were looked at."""

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
    plots: bool = True,
    report: Report = unwatched,
    progress: Progress = silent,
    stop: StopRequest | None = None,
) -> SweepSummary:
    """Train every point of a sweep's file that is not done yet, and write results.csv and plots to its folder.

    All points are looked at before the first is trained. Raises InvalidInputError or MismatchError for the first point
    with a fault, InvalidInputError for a folder that another process holds, and InterruptedRunError once `stop` is
    requested; the error of a point that fails is in its row.
    """
    engine, stop = engine or Engine(), stop or StopRequest()
    began = time.monotonic()
    file, checker = load_sweep(path), Checker()
    place = _place(file, folder, path, engine)

    def make(swept: dict[str, Any]) -> Point:
        return make_point(file, swept, place)

    known = list(corners(file, place)) if file.study else points_of(file, place)
    if file.study:
        require_optuna(file.study)
        require_measured(known[0].settings, file.study.metric)
    found = checker.check(known, progress, stop)
    board = Board(place / "results.csv", file.swept, checker, report)
    trainer = Trainer(engine.together, board, stop)
    try:
        with held(place):
            study = Study.open(file.study, place) if file.study else None
            write_whole(place / "sweep.toml", Path(path).read_bytes())
            with engine.opened() as trainer.workers:
                if trainer.workers is not None:
                    progress(f"dask workers, dashboard {trainer.workers.dashboard or 'off'}", 1, 1)
                if study is None:
                    board.add(known, found)
                    present = sum(result.status == "done" for result in board.results)
                    trainer.train([point for point in known if found[point.name] < point.settings.epochs])
                else:
                    present = _search(study, make, checker, board, trainer, stop)
    except InterruptedRunError as error:
        board.stopped()
        done = sum(result.status == "done" for result in board.results)
        raise InterruptedRunError(
            f"stopped as asked; {done} of {len(board.results)} points are done; {AGAIN}"
        ) from error
    best = _best(board.results)
    if study:
        best = None if study.best is None else make(study.best).name
    return SweepSummary(
        folder=str(place),
        points=len(board.results),
        done=sum(result.status == "done" for result in board.results),
        present=present,
        failed=sum(result.status == "failed" for result in board.results),
        seconds=time.monotonic() - began,
        best=best,
        note=trainer.note,
        results=str(place / "results.csv"),
        plots=draw(board.results, file.swept, place / "plots") if plots else (),
        rows=board.results,
    )


class Trainer:
    """Trains points in groups that can share a stream; errors are noted on the board and stop nothing."""

    def __init__(self, together: int, board: Board, stop: StopRequest) -> None:
        self._together, self._board, self._stop = together, board, stop
        self.workers: Workers | None = None
        self.note = ""

    @property
    def at_once(self) -> int:
        """Points that can be trained at the same time."""
        return self._together * (1 if self.workers is None else max(len(self.workers.client.nthreads()), 1))

    def train(self, points: Sequence[Point]) -> None:
        """Train some points, each from where its folder stands."""
        groups = grouped(points, self._together)
        if len(groups) > -(-len(points) // self._together):
            keeps = ", ".join(apart([point.settings for point in points]))
            self.note = f"{len(points)} points in {len(groups)} groups: only students of equal {keeps} share a stream"
        if self.workers is None:
            for group in groups:
                self._stop.check(AGAIN)
                self._here(group)
        else:
            self._elsewhere(groups, self.workers)

    def _here(self, group: list[Point]) -> None:
        self._board.mark(group, "running")
        settings = [point.settings for point in group]
        outcomes = train_together(
            settings, progress=lambda what, done, total: self._board.step(group, done, total), stop=self._stop
        )
        names = {point.settings.run: point.name for point in group}
        errors = {names[each.settings.run]: told(each.error) for each in outcomes if each.error is not None}
        self._board.mark(group, "done", errors)

    def _elsewhere(self, groups: list[list[Point]], workers: Workers) -> None:
        by_key = {tuple(point.settings.run for point in group): group for group in groups}
        items = [tuple(point.settings for point in group) for group in groups]
        going, looked = list(groups), [0.0]

        def poll() -> None:
            self._stop.check(AGAIN)
            if time.monotonic() - looked[0] > LOOK:
                self._board.look([point for group in going for point in group])
                looked[0] = time.monotonic()

        for item, outcome in workers.each(train_group, items, ahead=1, retries=0, poll=poll):
            group = by_key[tuple(settings.run for settings in item)]
            going.remove(group)
            errors = outcome if isinstance(outcome, dict) else {each.run: told(outcome) for each in item}
            self._board.mark(group, "done", {p.name: errors[p.settings.run] for p in group if p.settings.run in errors})


def train_group(settings: tuple[TrainSettings, ...]) -> Errors:
    """What a worker does with one group; errors by the run's folder, as text: not every exception can be sent."""
    return {each.settings.run: told(each.error) for each in train_together(settings) if each.error is not None}


def grouped(points: Sequence[Point], together: int) -> list[list[Point]]:
    """Points that can share a stream, at most so many at a time, in the order of their first."""
    groups: list[list[Point]] = []
    for point in points:
        for group in groups:
            if len(group) < together and not apart([group[0].settings, point.settings]):
                group.append(point)
                break
        else:
            groups.append([point])
    return groups


def told(error: Exception) -> str:
    """An error as a row shows it: where it is not kdcache's own, its kind is half of what it says."""
    text = str(error)
    return text if type(error).__module__.startswith("kdcache.") else f"{type(error).__name__}: {text}"


def _place(file: SweepFile, folder: str, path: str | Path, engine: Engine) -> Path:
    chosen = folder or file.folder
    if not chosen:
        raise InvalidInputError(f'{path} names no folder; write folder = "runs/sweep" at its head, or give --folder')
    if engine.together < 1:
        raise InvalidInputError(f"together is {engine.together}; give 1 or more")
    place = Path(chosen)
    if place.exists() and not (place / "sweep.toml").exists() and not _empty(place):
        raise InvalidInputError(f"{place} is there and holds no sweep; choose another folder")
    return place.resolve() if engine.cluster else place  # workers may stand elsewhere


def _empty(place: Path) -> bool:
    return place.is_dir() and all(each.name == LOCK for each in place.iterdir())


def _search(study: Study, make: Make, checker: Checker, board: Board, trainer: Trainer, stop: StopRequest) -> int:
    """Trials until there are as many as asked; returns how many were there before."""
    present = study.ended
    made = {number: make(swept) for number, swept in study.past().items()}
    points = {point.name: point for point in made.values()}
    board.add(list(points.values()), {name: point.settings.epochs for name, point in points.items()}, study.trials)
    board.mark(
        [made[number] for number in study.failures], "failed", {made[n].name: e for n, e in study.failures.items()}
    )
    while asked := study.ask(trainer.at_once):
        trials = {number: make(swept) for number, swept in asked.items()}
        fresh = {point.name: point for point in trials.values()}
        found, faults = _checked(fresh, checker, stop)
        board.add(list(fresh.values()), found, study.trials)
        board.mark([fresh[name] for name in faults], "failed", faults)
        trainer.train([fresh[name] for name in found if found[name] < fresh[name].settings.epochs])
        rows = {result.point: result for result in board.results}
        for number, point in trials.items():
            study.tell(number, rows[point.name])
    return present


def _checked(points: dict[str, Point], checker: Checker, stop: StopRequest) -> tuple[dict[str, int], Errors]:
    """Epochs done by name, and faults: what each choice alone allows, a trial may combine to something impossible."""
    found: dict[str, int] = {}
    faults: Errors = {}
    for name, point in points.items():
        try:
            found |= checker.check([point], silent, stop)
        except InterruptedRunError:
            raise
        except KdcacheError as error:
            faults[name] = str(error)
    return found, faults


def _best(results: Sequence[Result]) -> str | None:
    judged = [result for result in results if result.status == "done" and result.accuracy is not None]
    return max(judged, key=lambda result: result.accuracy or 0.0).point if judged else None
