"""The runs and stores that a comparison is asked for: found, opened, and refused where they cannot be compared."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from kdcache.base.canonical import parse_json
from kdcache.base.records import flatten
from kdcache.base.specs import read_toml
from kdcache.errors import FormatError, InvalidInputError
from kdcache.measures.facts import Value
from kdcache.objectives.catalogue import DEFAULT
from kdcache.pipelines.compare.comparison import Answers, Member
from kdcache.pipelines.compare.settings import CompareSettings
from kdcache.store.lineage import read_class_names
from kdcache.store.store import Store
from kdcache.training.run_folder import SETTINGS, read_metrics
from kdcache.training.run_record import weights_apart
from kdcache.training.saved_networks import PREFIX, spelled_out, split_run
from kdcache.views.chosen_rows import OF_CLASSES
from kdcache.views.sources import of_whole

SWEEP = "sweep.toml"
BEST = "best"
EMPTY: tuple[Any, ...] = (None, "", [], {})
DATA = {"training data": ("ids", "probes"), "training labels": ("labels",)}  # digests, of no use in a group's name
UNSAID = ("seed", "memory_gb", "keep_epochs", "checkpoint_steps")  # no setting by which runs differ for a reader


class Network(BaseModel):
    """A run's network as `saved_networks` spells it out."""

    teacher: str
    teacher_set: dict[str, Any] = {}
    weights: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True)
class RunPlace:
    """A run that has ended, or of which weights were named: its record, metrics and network."""

    place: str
    folder: Path
    mark: str
    record: Mapping[str, Any]
    curves: tuple[Mapping[str, Any], ...]
    network: Network
    bytes_a_row: float | None = None

    @property
    def seed(self) -> int | None:
        seed = self.record.get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def weights_bytes(self) -> int:
        """The size of its weights file."""
        return Path(self.network.weights).stat().st_size

    @property
    def training(self) -> Mapping[str, Any]:
        """The identity of the data set that it was trained on, and of its stores."""
        inputs: Mapping[str, Any] = self.record.get("inputs", {}).get("train", {})
        return inputs

    @property
    def validation(self) -> Mapping[str, Any]:
        """The identity of the rows, views and stores that it was validated on; empty where it was not."""
        inputs: Mapping[str, Any] = self.record.get("inputs", {}).get("val", {})
        return inputs

    @property
    def name(self) -> str:
        """Its folder, and the mark of its weights where they are not the best."""
        return str(self.folder) + ("" if self.mark == BEST else f"@{self.mark}")

    @property
    def views(self) -> int | None:
        """The number of views that it learned from; None without a store."""
        return len(self.training.get("views", ())) or None

    def member(self, name: str, measures: Mapping[str, Value], answers: Answers) -> Member:
        """The run as a member of a comparison."""
        return Member(
            name, self.place, "run", self.seed, self.settings, measures, answers, self.curves, self.bytes_a_row,
            self.views,
        )  # fmt: skip

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes that its weights number."""
        return read_class_names(self.network.weights)

    @property
    def settings(self) -> dict[str, Any]:
        """Train's settings, flat, without those in which runs of one group may differ and those that are empty; what
        it learned from in short."""
        record = weights_apart({name: value for name, value in self.record.items() if name not in (*UNSAID, "inputs")})
        stores, views = self.training.get("stores", ()), list(self.training.get("views", ()))
        if not record.get("objective"):
            record["objective"] = DEFAULT if stores else "plain"
        if stores and record.get("transform") == "none":  # the views are the store's
            record.pop("transform")
        dataset = self.training.get("dataset", {})
        learned = {
            "compared weights": self.mark,
            "stores": "+".join(digest[:8] for digest in stores),
            "training rows": dataset.get("rows"),
            "training views": _span(views),
            **{name: _digits(dataset, *keys) for name, keys in DATA.items()},
        }
        return {name: value for name, value in {**flatten(record), **learned}.items() if value not in EMPTY}


@dataclass(frozen=True)
class StorePlace:
    """A store whose answers are compared as a run's are."""

    place: str
    store: Store


Place = RunPlace | StorePlace


def open_places(places: Sequence[str]) -> tuple[list[Place], list[str]]:
    """The runs and stores of these places, those of a sweep in the order of their names; and notes on what was left
    out. Raises InvalidInputError for a place that is none, is named twice, or is a run that has not ended."""
    found: list[Place] = []
    notes: list[str] = []
    for place in places:
        folder, mark = split_run(place)
        if (folder / SWEEP).is_file() and not mark:
            found += _of_sweep(folder, notes)
        elif (folder / SETTINGS).is_file() and not (folder / "kdcache").is_dir():
            found.append(_open_run(place, folder, mark))
        else:
            found.append(StorePlace(place, Store.open(place)))
    names = [_resolved(each.place) if isinstance(each, StorePlace) else _resolved(each.name) for each in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidInputError(f"{', '.join(twice)} was named twice; name each run and store once")
    if not found:
        raise InvalidInputError(f"{', '.join(places)} holds no run that has ended; let it train to its end")
    return found, notes


def names_of(places: Sequence[str]) -> list[str]:
    """A name of each place: the last parts of its path, as many as tell all of them apart."""
    parts = [place.rstrip("/").split("/") for place in places]
    for count in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(each[-count:]).removesuffix(".kd") for each in parts]
        if len(set(names)) == len(names):
            return names
    return list(places)


def unlike_trainings(runs: Sequence[RunPlace]) -> Iterator[str]:
    """A word where runs differ in what they learned from."""
    if len({str(run.training.get("dataset")) for run in runs}) > 1:
        yield "the runs were trained on unlike data sets: a difference between them may be one of data"


def name_of(place: Place) -> str:
    """The place as a name is made of it."""
    return place.place if isinstance(place, StorePlace) else place.name


def _span(views: Sequence[int]) -> str:
    """`0:10`, or all numbers where some between are left out; empty for none."""
    if not views:
        return ""
    is_span = list(views) == list(range(views[0], views[0] + len(views)))
    return f"{views[0]}:{views[-1] + 1}" if is_span else ",".join(map(str, views))


def _resolved(place: str) -> str:
    path = Path(place)
    return place if "://" in place else str(path.parent.resolve() / path.name)


def _digits(dataset: Mapping[str, Any], *keys: str) -> str:
    return "-".join(str(dataset.get(key, ""))[:8] for key in keys)


def of_sweep(settings: CompareSettings) -> CompareSettings:
    """Settings whose store and data are those with which a sweep was validated, where they name none themselves."""
    folder = next((Path(place) for place in settings.runs if (Path(place) / SWEEP).is_file()), None)
    if folder is None or settings.store:
        return settings
    base = read_toml(folder / SWEEP, "sweep").get("base", {})
    if not base.get("val_store"):
        return settings
    changes: dict[str, Any] = {"store": base["val_store"]}
    if settings.combine is None and base.get("combine", "probabilities") != "losses":
        changes["combine"] = base.get("combine", "probabilities")  # as it was validated: by all of them as one
    if not settings.data and (data := base.get("val_data") or base.get("data")):
        whole = {} if base.get("val_data") else of_whole(data, base.get("data_set", {}), keep=OF_CLASSES)
        changes |= {"data": data, "data_set": {**whole, **base.get("val_set", {}), **settings.data_set}}
    return CompareSettings.model_validate({**settings.model_dump(exclude_unset=True), **changes})


def _of_sweep(folder: Path, notes: list[str]) -> list[RunPlace]:
    """The runs of a sweep that have ended, with the bytes a row that its table has."""
    sizes, runs = _bytes_of_sweep(folder), []
    for path in sorted(folder.iterdir()):
        if not (path / SETTINGS).is_file():
            continue
        record = _record(path)
        if len(read_metrics(path)) < record["epochs"]:
            notes.append(f"{path} has not ended, and is left out")
        else:
            runs.append(_open_run(str(path), path, "", sizes.get(path.name)))
    return runs


def _bytes_of_sweep(folder: Path) -> dict[str, float]:
    path = folder / "results.csv"
    if not path.is_file():
        return {}
    with open(path, newline="") as file:
        return {row["point"]: float(row["bytes_a_row"]) for row in csv.DictReader(file) if row.get("bytes_a_row")}


def _record(folder: Path) -> dict[str, Any]:
    path = folder / SETTINGS
    try:
        record = parse_json(path.read_bytes(), str(path))
    except FormatError as error:
        raise InvalidInputError(f"{path} is damaged ({error}); leave the run out") from error
    if not isinstance(record, dict) or not isinstance(record.get("epochs"), int):
        raise InvalidInputError(f"{path} is no record of a run; leave it out")
    return record


def _open_run(place: str, folder: Path, mark: str, bytes_a_row: float | None = None) -> RunPlace:
    record, curves = _record(folder), read_metrics(folder)
    if not mark and len(curves) < record["epochs"]:
        raise InvalidInputError(
            f"{folder} has ended {len(curves)} of {record['epochs']} epochs; train it to its end, or name the weights "
            f"that are to be compared: {folder}@last"
        )
    network = spelled_out(Network(teacher=f"{PREFIX}{folder}" + (f"@{mark}" if mark else "")))
    return RunPlace(place, folder, mark or BEST, record, tuple(curves), network, bytes_a_row)
