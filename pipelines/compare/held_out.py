"""The held-out rows of a comparison: the stores of their teachers, and the data set that their views are drawn from."""

from collections.abc import Sequence
from contextlib import closing

import numpy as np
import torch

from kdcache.base.arrays import IntArray
from kdcache.base.devices import chosen_device
from kdcache.base.progress import Activity, Progress
from kdcache.base.records import require_equal
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError
from kdcache.pipelines.compare.asking import PARTS, Asked, Taught, Teacher, ask_runs, largest_piece, log_probs_of
from kdcache.pipelines.compare.members import Place, RunPlace, StorePlace
from kdcache.pipelines.compare.networks import AskedNetwork, tap_of
from kdcache.pipelines.compare.settings import CompareSettings
from kdcache.store.store import Store
from kdcache.training.loader import Loader
from kdcache.training.loader_inputs import answered_positions, fitting
from kdcache.training.loader_options import FeedOptions, LabelOptions
from kdcache.views.class_numbers import is_unlabelled
from kdcache.views.data import Data, UseOfLabels
from kdcache.views.sources import open_data
from kdcache.views.transforms import build_transform

NETWORK_BYTES = 2_000_000_000  # of networks that are asked side by side


class HeldOut:
    """The rows that members are asked for: of one view of the teacher's store, which is the first of `stores`."""

    def __init__(self, settings: CompareSettings, stores: Sequence[Store]) -> None:
        self.settings, self.stores, self.first = settings, stores, stores[0]
        _require_one_order(stores)
        if sequence := max(store.identity.dataset.sequence for store in stores) - 1:
            raise InvalidInputError(
                f"{self.first.folder.root} holds texts of {sequence + 1} tokens, and runs are compared on pictures; "
                "kdcache train --val-store measures perplexity, agreement and KL a token, kdcache diff two stores"
            )
        self.view = self.first.every_view[0] if settings.view is None else settings.view
        for store in stores:
            if self.view not in store.every_view:
                views = f"{store.every_view[0]} to {store.every_view[-1]}"
                raise InvalidInputError(f"{store.folder.root} has no view {self.view}; it has {views}")
        self.device = chosen_device(settings.device)
        self.data: Data | None = None
        if settings.data:
            labels: UseOfLabels = "none" if is_unlabelled(self.first) else "data"
            self.data = fitting(stores, open_data(settings.data, settings.data_set, labels=labels))

    def has_same_view(self, store: Store) -> bool:
        """True for a store that answered the very view that is compared."""
        return store.identity.plan == self.first.identity.plan and self.view in store.every_view

    def ask(self, places: Sequence[Place], progress: Progress, *, in_parts: bool) -> tuple[list[Asked], Teacher]:
        """The answers of these runs and stores, and the teacher. `in_parts`: in 20 parts of the rows, each with a
        tally of its own."""
        stored = [(number, place) for number, place in enumerate(places) if isinstance(place, StorePlace)]
        positions = self._positions([place.store for _, place in stored])
        part = -(-len(positions) // PARTS) if in_parts else None
        asked: dict[int, Asked] = {}
        runs = [(number, place) for number, place in enumerate(places) if isinstance(place, RunPlace)]
        teacher = None
        for batch_of_runs in self._side_by_side(runs):
            networks = [AskedNetwork(run, self.first, self.settings.also, self.device) for _, run in batch_of_runs]
            run = batch_of_runs[0][1]
            with closing(self._loader(run.network.mean, run.network.std, positions)) as loader:
                answers, teacher = ask_runs(networks, loader, self.settings.combine, part, progress)
            asked |= dict(zip([number for number, _ in batch_of_runs], answers, strict=True))
        teacher = teacher or self._stored(positions, part)
        for done, (number, place) in enumerate(stored, start=1):
            asked[number] = self._asked_store(place, teacher)
            progress(Activity("reading", "stores"), done, len(stored))
        return [asked[number] for number in range(len(places))], teacher

    def _side_by_side(self, runs: Sequence[tuple[int, RunPlace]]) -> list[list[tuple[int, RunPlace]]]:
        """Runs that see the same images, as many as memory holds at a time, by the size of their weights files."""
        by_feed: dict[tuple[tuple[float, ...], ...], list[tuple[int, RunPlace]]] = {}
        for number, run in runs:
            by_feed.setdefault((run.network.mean, run.network.std), []).append((number, run))
        batches: list[list[tuple[int, RunPlace]]] = []
        for members in by_feed.values():
            size = NETWORK_BYTES
            for number, run in members:
                size += run.weights_bytes
                if size > NETWORK_BYTES:
                    batches.append([])
                    size = run.weights_bytes
                batches[-1].append((number, run))
        return batches

    def _positions(self, compared: Sequence[Store]) -> IntArray:
        """The positions that all teachers and all stores that are compared have an answer of, ascending."""
        positions = np.asarray(answered_positions(self.stores, (self.view,), range(self.first.rows)))
        place = np.argsort(self.first.order)
        struck = [place[store.order[store.struck(self._view_of(store))]] for store in compared]
        positions = np.setdiff1d(positions, np.concatenate(struck)) if struck else positions
        if not len(positions):
            raise InvalidInputError("no row has an answer of all stores: each was struck in one of them")
        return positions

    def _view_of(self, store: Store) -> int:
        return self.view if self.has_same_view(store) else store.every_view[0]

    def _asked_store(self, place: StorePlace, teacher: Teacher) -> Asked:
        """A store's answers for the teacher's rows: by sample, whatever its own order."""
        asked, store = Asked(place.place), place.store
        position_of = np.argsort(store.order)
        for rows in teacher.rows:
            positions = position_of[self.first.order[rows.positions]]
            soft = store.read(self._view_of(store), positions).by_class().to(self.device)
            asked.count(log_probs_of(soft), rows)
        return asked

    def _loader(self, mean: tuple[float, ...], std: tuple[float, ...], positions: IntArray) -> Loader:
        assert self.data is not None
        settings, transform = self.settings, None
        if settings.transform:
            transform = build_transform(settings.transform, settings.transform_set)[0]
        feed = FeedOptions(
            settings.workers, self.device, mean, std, transform=transform, worker_start=settings.worker_start
        )
        return Loader(
            self.data, self.stores, batch_size=settings.batch_size, epochs=1, views=ViewSpan(self.view, self.view + 1),
            positions=positions,
            labels=LabelOptions(taps=self._taps(), accept_drift=settings.accept_drift, by_class=True),
            feed=feed,
        )  # fmt: skip

    def _taps(self) -> tuple[tuple[str, ...], ...]:
        """The taps that are read of each store for further measures: of the first one."""
        names = tap_of(self.first, self.settings.also)
        return (names, *[()] * (len(self.stores) - 1)) if names else ()

    def _stored(self, positions: IntArray, part: int | None) -> Teacher:
        """The teacher's rows without any picture, in pieces; parts are drawn: rows of a class may lie together."""
        teacher, size = Teacher(), part or largest_piece(self.first.identity.teacher.label_classes)
        if part is not None:
            positions = np.random.default_rng(0).permutation(positions)
        for start in range(0, len(positions), size):
            rows = positions[start : start + size]
            soft = [store.read(self.view, rows).by_class().to(self.device) for store in self.stores]
            y = torch.from_numpy(self.first.labels[rows]).to(self.device)
            teacher.count(Taught.of(soft, y, rows, self.settings.combine))
        return teacher


def _require_one_order(stores: Sequence[Store]) -> None:
    """Raises MismatchError for a further teacher of other rows, order or views than the first one, and
    InvalidInputError for one of other classes, mixed views or no view at all."""
    first, root = stores[0].identity, str(stores[0].folder.root)
    advice = "extract it with the same data, seed and transform"
    for store in stores:
        name, own = str(store.folder.root), store.identity
        require_equal(
            first.dataset, own.dataset, f"{name} is of other rows than {root}:", advice, "dataset.", names=(root, name)
        )
        require_equal(first.order, own.order, f"{name} has another order:", advice, "order.", names=(root, name))
        require_equal(first.plan, own.plan, f"{name} has another view plan:", advice, "views.", names=(root, name))
        if (classes := own.teacher.label_classes) != first.teacher.label_classes:
            raise InvalidInputError(f"{name} has {classes} classes, not {first.teacher.label_classes}")
        if not store.every_view:
            raise InvalidInputError(f"{name} has no view yet; run kdcache extract")
        if own.plan.mix != "none":
            advice = "whose label would be right? extract held-out rows without --mix"
            raise InvalidInputError(f"the views of {name} are mixed by {own.plan.mix}: {advice}")
        own.encoding.require_log_probs("compare")
