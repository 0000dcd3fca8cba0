"""A sweep is checked as a whole before its first step: every point's settings, stores, student and folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdcache.base.progress import Activity, Progress, StopRequest
from kdcache.errors import InvalidInputError, KdcacheError
from kdcache.objectives.tap_pairs import Sizes
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.sweep.space import Point
from kdcache.pipelines.train.first_answers import require_answers
from kdcache.pipelines.train.longer import why_not_longer
from kdcache.pipelines.train.objective import build_objective, chosen_temperature
from kdcache.pipelines.train.prepare import Inputs, Loaders, open_inputs, open_loaders, run_record, with_stores
from kdcache.pipelines.train.shared_settings import SHARED
from kdcache.pipelines.train.sizes import sizes_of
from kdcache.pipelines.train.student import build_student, example_views, require_usable
from kdcache.pipelines.train.subclasses import student_subclasses, with_subclasses
from kdcache.pipelines.train.validating import require_own_folder
from kdcache.store.store import Store
from kdcache.training.joined_loader import are_of_parts
from kdcache.training.run_folder import STATE, epochs_done, require_same_run
from kdcache.whole_store.row_bytes import row_bytes

CHECKING = Activity("checking", "points")
CALIBRATES = ("store", "calibration_store", "val_store", "temperature")
BUILDS = ("student", "student_set", "weights", "precision", "seed")


class Checker:
    """A checker opens each store and data set once, however many points name it."""

    def __init__(self) -> None:
        self._stores: dict[str, Store] = {}
        self._inputs: dict[str, Inputs] = {}
        self._last: tuple[str, Loaders] | None = None
        self._records: dict[str, dict[str, Any]] = {}
        self._temperatures: dict[str, float | None] = {}
        self._answered: set[str] = set()
        self._row_bytes: dict[tuple[str, int | None, bool], float] = {}

    def used_views(self, settings: TrainSettings) -> int | None:
        """The count of views that a point cycles through: its own, or all of its stores'; None for plain training."""
        if settings.views is not None or not settings.store:
            return len(settings.views) if settings.views is not None and settings.store else None
        return len(set.intersection(*(set(self._store(url).every_view) for url in settings.store)))

    def bytes_a_row(self, settings: TrainSettings) -> float | None:
        """Bytes a row at the point's k' and tail, see `row_bytes`; None for plain training. Those of an ensemble are
        summed; of stores of parts, in whose rows they differ, it is the mean."""
        if not settings.store:
            return None
        sizes = []
        for url in settings.store:
            key = (url, settings.top_k, settings.tail != "none")
            if key not in self._row_bytes:
                self._row_bytes[key] = row_bytes(self._store(url), settings.top_k, tail=settings.tail != "none")
            sizes.append(self._row_bytes[key])
        stores = [self._store(url) for url in settings.store]
        if are_of_parts(stores):
            return sum(size * store.rows for size, store in zip(sizes, stores, strict=True)) / sum(
                s.rows for s in stores
            )
        return sum(sizes)

    def check(self, points: Sequence[Point], progress: Progress, stop: StopRequest) -> dict[str, int]:
        """Check points, and return the epochs that each point's folder holds, by the point's name. Raises the error of
        the first point with a fault, naming it; nothing is written."""
        epoch_counts = {}
        for number, point in enumerate(points):
            progress(CHECKING, number, len(points))
            stop.check("nothing was begun")
            try:
                epoch_counts[point.name] = self._check(point.settings)
            except KdcacheError as error:
                error.args = (f"point {point.name}: {error}",)
                raise
        progress(CHECKING, len(points), len(points))
        self._inputs, self._last = {}, None  # data sets may be large, and trainings open their own
        return epoch_counts

    def _check(self, settings: TrainSettings) -> int:
        require_own_folder(settings)
        inputs = self._inputs_of(settings)
        require_usable(inputs.stores, settings)
        settings = with_subclasses(settings, inputs.stores)
        temperature = self._temperature(settings, inputs)

        def sizes() -> Sizes:
            network = build_student(settings, inputs.data, inputs.stores)[0]
            return sizes_of(
                network,
                example_views(settings, inputs.data, inputs.stores),
                inputs.teachers,
                weights=settings.ensemble_weights,
                subclasses=student_subclasses(settings, inputs.stores),
            )

        objective = build_objective(settings, inputs.teachers, temperature, sizes)
        key = _key(settings, SHARED)
        build = key + _key(settings, BUILDS)
        if build not in self._answered:
            loaders = self._loaders_of(key, settings, inputs)
            network = build_student(settings, inputs.data, inputs.stores)[0].to(inputs.device)
            subclasses = student_subclasses(settings, inputs.stores)
            require_answers(network, inputs.data, loaders.all, settings.precision, subclasses)
            self._answered.add(build)
        folder = Path(settings.run)
        if not (folder / STATE).exists():
            return 0
        loaders = self._loaders_of(key, settings, inputs)
        require_same_run(
            folder,
            run_record(settings, temperature, self._records[key]),
            lambda epochs: why_not_longer(settings, objective, loaders.training, epochs),
        )
        return epochs_done(folder)

    def _temperature(self, settings: TrainSettings, inputs: Inputs) -> float | None:
        if settings.temperature != "calibrated":
            return settings.temperature
        key = _key(settings, CALIBRATES) + str(settings.top_k is None)
        if key not in self._temperatures:
            self._temperatures[key] = chosen_temperature(settings, inputs.teachers)
        return self._temperatures[key]

    def _loaders_of(self, key: str, settings: TrainSettings, inputs: Inputs) -> Loaders:
        if self._last is None or self._last[0] != key:
            self._last = None  # free the validation data before the next one is opened
            self._last = (key, open_loaders(settings, inputs))
            self._records[key] = self._last[1].record
        return self._last[1]

    def _inputs_of(self, settings: TrainSettings) -> Inputs:
        key = _key(settings, ("data", "data_set", "store", "device"))
        if key not in self._inputs:
            inputs = open_inputs(settings.model_copy(update={"store": ()}))
            self._inputs[key] = with_stores(inputs, [self._store(url) for url in settings.store], settings)
        return self._inputs[key]

    def _store(self, url: str) -> Store:
        if url not in self._stores:
            self._stores[url] = Store.open(url)
        return self._stores[url]


def require_measured(settings: TrainSettings, metric: str) -> None:
    """Raises InvalidInputError for a metric that a run of these settings does not measure."""
    metrics = ["loss"]
    if settings.validates:
        metrics += ["accuracy", "best_accuracy", "nll", "ece"]
    if settings.val_store:
        metrics += ["agreement", "kl_to_teacher"]
    if metric not in metrics:
        raise InvalidInputError(
            f"metric {metric} is not measured; with these settings there are {', '.join(metrics)}: give val_set, "
            "val_data or val_store in [base], or another metric"
        )


def _key(settings: TrainSettings, names: Sequence[str]) -> str:
    record: dict[str, Any] = settings.model_dump(mode="json", include=set(names))
    return json.dumps(record, sort_keys=True)
