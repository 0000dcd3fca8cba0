"""The bench of a study makes teachers, stores and students of few words, and measures them over seeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kdcache.errors import InvalidInputError
from kdcache.pipelines.compare.settings import CompareSettings
from kdcache.pipelines.studies.claims import Values
from kdcache.pipelines.studies.pieces import Pieces
from kdcache.pipelines.studies.settings import StudySettings
from kdcache.pipelines.studies.study_data import StudyData
from kdcache.pipelines.taps import list_taps
from kdcache.pipelines.taps_settings import TapsSettings
from kdcache.training.run_folder import read_metrics
from kdcache.training.saved_networks import PREFIX

TOY_SEEDS, TOY_EPOCHS = 2, 2
FURTHER = 100_000_000  # between the seeds of students that come after one another
APART = 1_000_000  # between the seeds of teachers and of students, who would else begin alike
OPTIMISER = {"lr": 0.05, "batch_size": 64}  # of every training, beside train's defaults: SGD, cosine, decay 5e-4

Teachers = TypeVar("Teachers", bound=tuple[str, ...])
Arms = Mapping[str, Mapping[str, Any]]
"""The settings of `kdcache train` in which each arm differs from the others, by the arm's name."""
Rows = dict[str, Any]
"""Arguments of a data set that choose rows, see `StudyData.part`."""
Measures = dict[str, dict[str, Values]]
"""Measures by arm and name; a value a seed."""


class BySeed(tuple[Any, ...]):
    """Values that differ by seed, such as the folders of runs or stores, one a seed."""

    __slots__ = ()


Runs = dict[str, BySeed]
"""The runs of each arm by its name, one a seed."""


@dataclass(frozen=True)
class Network:
    """A network by its spec and arguments, and the weights that it has, empty where it must be trained."""

    spec: str
    arguments: Mapping[str, Any]
    weights: str = ""


class Bench:
    """A bench for one study: its data, seeds and pieces. Where a value differs by seed it is a `BySeed`."""

    def __init__(self, settings: StudySettings, pieces: Pieces, data: StudyData) -> None:
        self.settings, self.pieces, self.data = settings, pieces, data
        count = min(settings.seeds, TOY_SEEDS) if settings.toy else settings.seeds
        self.seeds = tuple(range(settings.first_seed, settings.first_seed + count))

    # networks

    def mlp(self, width: int, depth: int = 1) -> Network:
        """A perceptron of `depth` hidden layers."""
        arguments = {"width": width, **({"depth": depth} if depth != 1 else {})}
        return Network("kdcache.networks:mlp", {**arguments, "inputs": int(np.prod(self.data.shape))})

    def convnet(self, width: int) -> Network:
        """A convolutional network of two stages of batch-normalised pairs."""
        channels = {"channels": self.data.shape[0]} if self.data.shape[0] != 1 else {}
        return Network("kdcache.networks:convnet", {"width": width, **channels})

    def own_student(self, default: Network) -> Network:
        """The user's student, or else the study's."""
        settings = self.settings
        return Network(settings.student, settings.student_set) if settings.student else default

    def own_teacher(self, default: Network) -> Network:
        """The user's teacher, or else the study's."""
        settings = self.settings
        return Network(settings.teacher, settings.teacher_set, settings.weights) if settings.teacher else default

    def last_map(self) -> str:
        """The layer that ends the last stage of the user's teacher. Raises InvalidInputError where it has no stages."""
        settings, data = self.settings, self.data
        layers = list_taps(
            TapsSettings(
                network=settings.teacher, teacher_set=settings.teacher_set, classes=data.train.classes,
                data=data.spec, data_set=data.train_set, transform=data.transform, transform_set=data.transform_set,
            )
        )  # fmt: skip
        if not layers.stages:
            raise InvalidInputError(f"teacher {settings.teacher} has no stages with maps, and this study compares maps")
        return layers.stages[-1]

    # trainings

    def teacher(self, network: Network, rows: int, epochs: int, **settings: Any) -> str:
        """One teacher, of the first seed: `run:FOLDER@last`, or the user's own spec."""
        return self.members(network, 1, rows, epochs, **settings)[0]

    def members(self, network: Network, count: int, rows: int, epochs: int, **settings: Any) -> tuple[str, ...]:
        """So many teachers of all seeds."""
        return self._teachers(network, range(self.seeds[0], self.seeds[0] + count), rows, epochs, settings)

    def teachers(self, network: Network, rows: int, epochs: int, *, another: int = 0, **settings: Any) -> BySeed:
        """A teacher for each seed; `another`: that many have been trained for each before. `part`: further arguments
        of their rows."""
        seeds = [seed + another * APART for seed in self.seeds]
        return BySeed(self._teachers(network, seeds, rows, epochs, settings))

    def _teachers(
        self, network: Network, seeds: Sequence[int], rows: int, epochs: int, settings: dict[str, Any]
    ) -> tuple[str, ...]:
        network = self.own_teacher(network)
        if network.weights:
            return (network.spec,) * len(seeds)
        part = self.data.part(rows, teacher=True, **settings.pop("part", {}))
        common = {
            "student": network.spec, "student_set": dict(network.arguments), "epochs": self._shortened(epochs),
            **OPTIMISER, "batch_size": 128, **self._inputs(part), **self._test(), **settings,
        }  # fmt: skip
        runs = self.pieces.train("training teachers", [{**common, "seed": seed + APART} for seed in seeds])
        return tuple(f"{PREFIX}{run}@last" for run in runs)

    def students(
        self,
        arms: Arms,
        network: Network,
        rows: int,
        epochs: int,
        *,
        own: bool = True,
        another: int = 0,
        **settings: Any,
    ) -> Runs:
        """Students of each arm and seed, all of one seed with the same batches: the folders of their runs.

        own: false for networks between teacher and student, which the user's own does not replace. another: so many
        students came before, whose seeds are others. `part`: further arguments of their rows; other settings are those
        of `kdcache train`.
        """
        network = self.own_student(network) if own else network
        common = {
            "student": network.spec, "student_set": dict(network.arguments), "epochs": self.epochs(epochs), **OPTIMISER,
            **self._inputs(self.data.part(rows, **settings.pop("part", {}))), **self._test(), **settings,
            **self.settings.training,
        }  # fmt: skip
        trainings = [
            {**_of_seed({**common, **arm}, number), "seed": seed + another * FURTHER}
            for arm in arms.values()
            for number, seed in enumerate(self.seeds)
        ]
        folders, n = self.pieces.train("training students", trainings), len(self.seeds)
        return {arm: BySeed(folders[n * number : n * (number + 1)]) for number, arm in enumerate(arms)}

    def same(self, teacher: str) -> BySeed:
        """One teacher for all seeds."""
        return BySeed(teacher for _ in self.seeds)

    def epochs(self, epochs: int) -> int:
        """The epochs of a student, where the study says so many."""
        return self._shortened(self.settings.epochs or epochs)

    def epoch(self, epoch: int, of: int) -> int:
        """An epoch of a teacher of `of` epochs, of which a toy has fewer."""
        return max(1, round(epoch * self._shortened(of) / of))

    def runs_of(self, teachers: Teachers) -> Teachers:
        """The folders of teachers' runs."""
        return type(teachers)(teacher.removeprefix(PREFIX).rpartition("@")[0] for teacher in teachers)

    def as_teachers(self, runs: BySeed) -> BySeed:
        """Students as teachers."""
        return BySeed(f"{PREFIX}{run}@last" for run in runs)

    def checkpoints(self, teachers: Teachers, epoch: int) -> Teachers:
        """Teachers as they were after so many epochs, which they have kept."""
        return type(teachers)(f"{teacher.rpartition('@')[0]}@epoch-{epoch}" for teacher in teachers)

    # stores

    def store(self, teacher: str, rows: Rows, **settings: Any) -> str:
        """The store of a teacher's answers for some rows, all logits of one view unless the settings say otherwise."""
        return self.stores((teacher,), rows, **settings)[0]

    def stores(self, teachers: Teachers, rows: Rows, **settings: Any) -> Teachers:
        """A store for each teacher; those of a `BySeed` are one, and may be of rows that differ by seed."""
        extractions = [
            self._extraction(teacher, _of_seed(rows, number) if isinstance(teachers, BySeed) else rows, settings)
            for number, teacher in enumerate(teachers)
        ]
        return type(teachers)(self.pieces.extract("extracting", extractions))

    # measures

    def validated(
        self, runs: Mapping[str, tuple[str, ...]], measure: str = "accuracy", *, epoch: int = 0
    ) -> dict[str, Values]:
        """A measure of the test split as each run noted it at its end, or after so many epochs; by arm, a value a
        seed."""
        if self.pieces.dry:
            return {arm: self._unknown() for arm in runs}
        return {arm: np.array([_noted(run, measure, epoch) for run in folders]) for arm, folders in runs.items()}

    def compared(
        self,
        runs: Mapping[str, tuple[str, ...]],
        stores: tuple[str, ...],
        measures: Sequence[str],
        *,
        rows: Rows | None = None,
        **settings: Any,
    ) -> Measures:
        """Measures of `kdcache compare` by arm and name; a value a seed.

        stores: of a teacher, or of the members of one with `combine`; a `BySeed`: each seed's runs are held against
        their own. They hold the test split, or else `rows`.
        """
        by_seed = isinstance(stores, BySeed)
        groups = [(n,) for n in range(len(self.seeds))] if by_seed else [tuple(range(len(self.seeds)))]
        values = {arm: {name: self._unknown() for name in measures} for arm in runs}
        for done, numbers in enumerate(groups, 1):
            places: dict[str, list[tuple[str, int]]] = {}
            for n in numbers:
                for arm, folders in runs.items():
                    places.setdefault(f"{folders[n]}@last", []).append((arm, n))
            asked = CompareSettings(
                runs=tuple(places), store=(stores[numbers[0]],) if by_seed else tuple(stores), data=self.data.spec,
                data_set=self.data.test_set if rows is None else rows, transform=self.data.own_transform,
                transform_set=self.data.transform_set if self.data.own_transform else {}, workers=0, **settings,
            )  # fmt: skip
            if (comparison := self.pieces.compare(asked)) is None:
                continue
            for member in (member for group in comparison.groups for member in group.members):
                for arm, n in places[member.place]:
                    for name in measures:
                        values[arm][name][n] = member.measures[name].value
            self.pieces.progress("comparing", done, len(groups))
        return values

    def known(self, function: Callable[[], Values], default: Values) -> Values:
        """The values that a function finds out from pieces; where none are made, `default`."""
        return default if self.pieces.dry else function()

    def slope(self, sizes: Sequence[float], values: Sequence[Values]) -> Values:
        """The slope of values [sizes][n] over the binary logarithm of sizes, by least squares: per doubling, a seed."""
        x = np.log2(np.asarray(sizes, dtype=float))
        x -= x.mean()
        return np.asarray(x @ np.asarray(values) / (x @ x))

    def _extraction(self, teacher: str, rows: Rows, settings: dict[str, Any]) -> dict[str, Any]:
        asked = self.settings
        is_own = bool(asked.weights) and teacher == asked.teacher
        named = {"teacher_set": asked.teacher_set, "weights": asked.weights} if is_own else {}
        toy = {"min_accuracy": 0.0} if asked.toy else {}
        return {"teacher": teacher, **named, "encoding": "full", **toy, **self._inputs(rows), **settings}

    def _inputs(self, rows: Rows) -> dict[str, Any]:
        return {
            "data": self.data.spec, "data_set": rows, "transform": self.data.transform,
            "transform_set": self.data.transform_set,
        }  # fmt: skip

    def _test(self) -> dict[str, Any]:
        return {
            "val_set": self.data.test_set, "val_transform": self.data.transform,
            "val_transform_set": self.data.transform_set,
        }  # fmt: skip

    def _shortened(self, epochs: int) -> int:
        return min(epochs, TOY_EPOCHS) if self.settings.toy else epochs

    def _unknown(self) -> Values:
        return np.full(len(self.seeds), np.nan)


def _noted(run: str, measure: str, epoch: int) -> float:
    return float(read_metrics(Path(run))[epoch - 1][measure])


def _of_seed(value: Any, number: int) -> Any:
    """The value of a seed: of a `BySeed` its own; of a tuple or dict with some of these likewise."""
    if isinstance(value, BySeed):
        return value[number]
    if isinstance(value, dict):
        return {name: _of_seed(entry, number) for name, entry in value.items()}
    return tuple(_of_seed(entry, number) for entry in value) if isinstance(value, tuple) else value
