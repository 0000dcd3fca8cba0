"""The held-out rows of a comparison: the stores of their teachers, and the data set that their views are drawn from."""

from collections.abc import Sequence
from contextlib import closing

import numpy as np
import torch

from kdcache.base.devices import chosen_device
from kdcache.base.progress import Progress
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError
from kdcache.pipelines.compare.asking import Asked, Taught, Teacher, ask_runs, ask_stores, piece_rows
from kdcache.pipelines.compare.members import Place, RunPlace, StorePlace
from kdcache.pipelines.compare.networks import AskedNetwork, tap_of
from kdcache.pipelines.compare.settings import CompareSettings
from kdcache.store.store import Store
from kdcache.training.loader import Loader
from kdcache.training.loader_inputs import answered_positions
from kdcache.training.loader_options import FeedOptions, LabelOptions
from kdcache.views.class_numbers import is_unlabelled
from kdcache.views.sources import Data, UseOfLabels, open_data
from kdcache.views.transforms import build_transform

NETWORK_BYTES = 2_000_000_000  # of networks that are asked side by side


class HeldOut:
    """The rows that members are asked for: of one view of the teacher's store, which is the first of `stores`."""

    def __init__(self, settings: CompareSettings, stores: Sequence[Store]) -> None:
        self.settings, self.stores, self.first = settings, stores, stores[0]
        self.view = self.first.every_view[0] if settings.view is None else settings.view
        for store in stores:
            if self.view not in store.every_view:
                views = f"{store.every_view[0]} to {store.every_view[-1]}"
                raise InvalidInputError(f"{store.folder.root} has no view {self.view}; it has {views}")
        self.device = chosen_device(settings.device)
        self.data: Data | None = None
        if settings.data:
            labels: UseOfLabels = "none" if is_unlabelled(self.first) else "data"
            self.data = open_data(settings.data, settings.data_set, labels=labels)

    def ask(self, places: Sequence[Place], progress: Progress, *, in_parts: bool) -> tuple[list[Asked], Teacher]:
        """What each of these runs and stores answers, and the teacher. `in_parts`: in so many pieces that a bootstrap
        can draw among them."""
        largest = piece_rows(self.first.rows, self.first.identity.teacher.classes, in_parts=in_parts)
        asked: dict[int, Asked] = {}
        runs = [(number, place) for number, place in enumerate(places) if isinstance(place, RunPlace)]
        teacher = None
        for batch_of_runs in self._side_by_side(runs):
            networks = [AskedNetwork(run, self.first, self.settings.also, self.device) for _, run in batch_of_runs]
            run = batch_of_runs[0][1]
            with closing(self._loader(run.network.mean, run.network.std)) as loader:
                answers, teacher = ask_runs(networks, loader, self.settings.combine, largest, progress)
            asked |= dict(zip([number for number, _ in batch_of_runs], answers, strict=True))
        teacher = teacher or self._stored(largest)
        stored = [(number, place) for number, place in enumerate(places) if isinstance(place, StorePlace)]
        answers = ask_stores([place for _, place in stored], teacher, self.first, progress) if stored else []
        asked |= dict(zip([number for number, _ in stored], answers, strict=True))
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

    def _loader(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Loader:
        assert self.data is not None
        settings, transform = self.settings, None
        if settings.transform:
            transform = build_transform(settings.transform, settings.transform_set)[0]
        feed = FeedOptions(
            settings.workers, self.device, mean, std, transform=transform, worker_start=settings.worker_start
        )
        return Loader(
            self.data, self.stores, batch_size=settings.batch_size, epochs=1, views=ViewSpan(self.view, self.view + 1),
            labels=LabelOptions(taps=self._taps(), accept_drift=settings.accept_drift),
            feed=feed,
        )  # fmt: skip

    def _taps(self) -> tuple[tuple[str, ...], ...]:
        """What is read of each store for further measures: of the first one."""
        names = tap_of(self.first, self.settings.also)
        return (names, *[()] * (len(self.stores) - 1)) if names else ()

    def _stored(self, size: int) -> Teacher:
        """The teacher's rows without any picture, in the store's order, in pieces of a size."""
        teacher = Teacher()
        positions = np.asarray(answered_positions(self.stores, (self.view,), range(self.first.rows)))
        for start in range(0, len(positions), size):
            rows = positions[start : start + size]
            soft = [store.read(self.view, rows).to(self.device) for store in self.stores]
            y = torch.from_numpy(self.first.labels[rows]).to(self.device)
            teacher.count(Taught.of(soft, y, rows, self.settings.combine))
        return teacher
