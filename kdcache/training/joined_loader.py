"""The joined loader: batches of several stores whose data sets are disjoint parts of one data set.

A loader a part draws and reads that part's rows, under the part's own indices, since the keys of its views count them.
Each batch takes rows of all parts in proportion, and each row of each part comes once an epoch.

Shape letters: B rows of a batch, N rows of all parts.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdcache.base.progress import Progress, silent
from kdcache.base.ranges import require_seed
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError, MismatchError
from kdcache.labels.encodings import read_as
from kdcache.objectives.batch import Batch
from kdcache.store.plan import key_word
from kdcache.store.store import Store
from kdcache.training.batch_shares import sizes_by_part
from kdcache.training.joined_rows import cat, joined_labels, joined_negatives, joined_taps
from kdcache.training.loader import Loader
from kdcache.training.loader_inputs import require_same_views
from kdcache.training.loader_options import FeedOptions, LabelOptions
from kdcache.views.data import Data
from kdcache.views.data_parts import part_of, shown_ids
from kdcache.views.known_parts import find_parts
from kdcache.views.other_data import part_error
from kdcache.views.reading import as_extracted
from kdcache.views.replay import ReplayGrade

TEACHER = ("weights", "classes", "masked_classes", "class_map", "answers", "subclasses", "mean", "std")
"""Fields of a teacher in which the stores of two parts must agree: the answers of one teacher, fed in one way."""


class JoinedLoader:
    """Batches of rows of all parts, with the interface of `Loader`. Positions count through the parts: those of part i
    follow those of the parts before it.

    data: the whole data set. parts: the data set of each store, as `find_parts` has it; a store that does not fit its
    part raises MismatchError. batch_size: rows of a batch, near-equal in all batches.
    """

    def __init__(
        self,
        data: Data,
        stores: Sequence[Store],
        *,
        parts: Sequence[Data],
        batch_size: int,
        epochs: int,
        seed: int = 0,
        views: ViewSpan | None = None,
        labels: LabelOptions = LabelOptions(),  # noqa: B008  frozen
        feed: FeedOptions = FeedOptions(),  # noqa: B008
    ) -> None:
        require_joinable(stores, views, labels.top_k)
        require_one_process(feed.world_size)
        require_seed(seed)
        if labels.class_means:
            raise InvalidInputError(
                "--tail class-mean: each store has class means of its own, which cannot be joined; use --tail uniform"
            )
        self.data, self.stores = as_extracted(data, stores), tuple(stores)
        shares = _workers_by_part(parts, feed.workers)
        self.batch_size, self.epochs, self.device, self.workers = batch_size, epochs, feed.device, sum(shares)
        self.loaders = [
            Loader(
                part,
                [store],
                batch_size=batch_size,
                epochs=epochs,
                seed=key_word(seed, number, 0, "parts"),  # parts of one size would be dealt alike in every epoch
                views=views,
                labels=replace(
                    labels,
                    memory_bytes=labels.memory_bytes * len(part) // len(data),
                    negatives=-(-labels.negatives * len(part) // len(data)),
                ),
                feed=replace(feed, workers=workers),
            )
            for number, (part, store, workers) in enumerate(zip(parts, stores, shares, strict=True))
        ]
        self.drawings = tuple(drawing for loader in self.loaders for drawing in loader.drawings)
        first = self.loaders[0]
        self.plan, self.cycle = first.plan, first.cycle
        self._starts = np.cumsum([0, *(len(part) for part in parts[:-1])]).tolist()
        for loader, sizes in zip(self.loaders, sizes_by_part(self.rows_by_part, batch_size), strict=True):
            loader.deal_by(sizes)

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return len(self.loaders[0])

    def __repr__(self) -> str:
        rows, epoch = self.rows_by_part, self.state_dict()["epoch"]
        return (
            f"JoinedLoader({' + '.join(map(str, rows))} of {len(self.data)} rows, batch_size {self.batch_size}, "
            f"{len(self)} steps, next epoch {epoch} of {self.epochs}, {self.workers} workers, {self.device})"
        )

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the next epoch, see `Loader`."""
        return self._epoch(zip(*[iter(loader) for loader in self.loaders], strict=True))

    @property
    def rows_by_part(self) -> list[int]:
        """The numbers of rows that an epoch takes of each part."""
        return [len(loader.batch_order.positions) for loader in self.loaders]

    @property
    def drift(self) -> ReplayGrade | None:
        """The worst grade of drift that was accepted in a part; None without any."""
        return max((loader.drift for loader in self.loaders if loader.drift), key=lambda g: g.levels, default=None)

    @property
    def equal_steps(self) -> bool:
        """False: all epochs have equal steps here, which is no settlement with older runs."""
        return False

    @property
    def has_unequal_needs(self) -> bool:
        """False: each part's soft labels fit in memory."""
        return False

    def steps(self, epoch: int) -> int:
        """The number of batches of an epoch."""
        return self.loaders[0].steps(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next `iter()`, see `Loader`."""
        for loader in self.loaders:
            loader.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """The place of the next batch, `epoch` and `step`, and the states of the parts."""
        states = [loader.state_dict() for loader in self.loaders]
        epoch, step = min((state["epoch"], state["step"]) for state in states)  # an error leaves some of them ahead
        return {"epoch": epoch, "step": step, "parts": states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next `iter()` begin at a state's place. Raises MismatchError where the state is of other parts."""
        states = state.get("parts", ())
        if len(states) != len(self.loaders):
            count = (str(len(states)), str(len(self.loaders)))
            advice = "make the loader with the stores of the one that the state is of"
            raise MismatchError("the state is of another loader:", [("parts", *count)], advice, ("the state", "this"))
        place = {"epoch": state.get("epoch", -1), "step": state.get("step", -1)}
        for loader, part in zip(self.loaders, states, strict=True):
            loader.load_state_dict({**part, **place})

    def close(self) -> None:
        """End the workers and threads of all parts."""
        for loader in self.loaders:
            loader.close()

    def settle_steps(self, equal: bool | None) -> None:
        """Nothing is to be settled: all epochs have equal steps."""

    def spread_views(self, rows: int) -> dict[str, Tensor]:
        """Views of samples of all parts, `rows` of each at most, by the sample's name, see `Loader`."""
        return {name: view for loader in self.loaders for name, view in loader.spread_views(rows).items()}

    def _epoch(self, batches: Iterator[tuple[Batch, ...]]) -> Iterator[Batch]:
        """The joined batches of an epoch. An error in one part ends the workers of all."""
        while True:
            try:
                parts = next(batches, None)
                batch = None if parts is None else self._joined(parts)
            except BaseException:
                self.close()
                raise
            if batch is None:
                return
            yield batch

    def _joined(self, batches: tuple[Batch, ...]) -> Batch:
        """One batch of the parts' batches; those without rows, whose images have no size, are left out."""
        parts = [(batch, start) for batch, start in zip(batches, self._starts, strict=True) if len(batch.positions)]
        present = [batch for batch, _ in parts]
        first = present[0]
        shapes = {tuple(batch.images.shape[1:]): batch for batch in present}
        if len(shapes) > 1:
            sizes = " and ".join(str(list(shape)) for shape in shapes)
            raise InvalidInputError(f"the stores' views differ in shape: {sizes}; extract with one size for all")
        return replace(
            first,
            images=torch.cat([batch.images for batch in present]),
            y=torch.cat([batch.y for batch in present]),
            y2=cat([batch.y2 for batch in present]),
            lam=cat([batch.lam for batch in present]),
            positions=torch.cat([batch.positions + start for batch, start in parts]),
            teachers=(joined_labels([batch.teachers[0] for batch in present]),),
            features=tuple(torch.cat(features) for features in zip(*(b.features for b in present), strict=True)),
            shares=(sum(len(batch.positions) for batch in present),),
            taps=joined_taps([batch.taps for batch in present]),
            negatives=joined_negatives(batches, self._starts),
        )


def require_one_process(world_size: int) -> None:
    """Raises InvalidInputError where several processes share a training on stores of parts."""
    if world_size > 1:
        raise InvalidInputError(
            f"{world_size} processes were started, and stores of parts of a data set are trained on in one: start it "
            "without torchrun"
        )


def joined_parts(stores: Sequence[Store], data: Data, words: str, progress: Progress = silent) -> list[Data]:
    """The data set of each store: disjoint parts of `data`, which together are all of it. Raises MismatchError for a
    store of none, and InvalidInputError for samples that no store has. `words`: see `data_words`."""
    data = as_extracted(data, stores)
    parts, free = find_parts(stores, data, progress)
    for store, part in zip(stores, parts, strict=True):
        if part is None:
            raise part_error(store, data, words, progress, free=free)
    if free.any():
        ids = [data.ids[index] for index in np.flatnonzero(free).tolist()]
        names = " ".join(f"--store {shlex.quote(str(store.folder.root))}" for store in stores)
        raise InvalidInputError(
            f"{len(ids)} of {len(data)} samples are in none of the {len(stores)} stores: {shown_ids(ids)}; extract "
            f"them to a store of their own with --data-set rows=new.txt, which this writes: kdcache doctor {words} "
            f"{names} --write-new new.txt"
        )
    return [part_of(data, part) for part in parts if part is not None]


def are_of_parts(stores: Sequence[Store]) -> bool:
    """True for several stores of different data sets: an ensemble is of one."""
    datasets = [store.identity.dataset for store in stores]
    return any(one != datasets[0] for one in datasets)


def require_joinable(stores: Sequence[Store], views: ViewSpan | None, top_k: int | None = None) -> None:
    """Stores of parts must hold one teacher's answers under one view plan, in one form; with `top_k` they may keep
    different numbers of classes. Raises MismatchError and InvalidInputError, naming stores and fields."""
    first, paths = stores[0], [str(store.folder.root) for store in stores]
    for (path, store), (other_path, other) in combinations(zip(paths, stores, strict=True), 2):
        if store.identity.dataset == other.identity.dataset:
            raise InvalidInputError(
                f"{path} and {other_path} are of the same samples, and {len(stores)} stores were given as parts of a "
                "data set: give one store of each part; an ensemble needs stores of the whole data set"
            )
    for store in stores[1:]:
        names = (paths[0], str(store.folder.root))
        teachers = first.identity.teacher, store.identity.teacher
        pairs = [(f"teacher.{name}", *(getattr(teacher, name) for teacher in teachers)) for name in TEACHER]
        plans = [store.identity.plan.model_dump(mode="json") for store in (first, store)]
        pairs += [(f"views.{name}", *(plan[name] for plan in plans)) for name in plans[0]]
        encodings = [_form(store, top_k) for store in (first, store)]
        pairs += [(f"encoding.{name}", *(form.get(name) for form in encodings)) for name in encodings[0]]
        problems = [(field, _shown(left), _shown(right)) for field, left, right in pairs if left != right]
        if problems:
            advice = "extract the new samples with the teacher, transform, seed and encoding of the other store"
            raise MismatchError("stores of parts of one data set must be alike:", problems, advice, names)
    require_same_views(stores, views)


def _form(store: Store, top_k: int | None) -> dict[str, Any]:
    """The settings of an encoding by which its soft labels have one form; steps and packing may differ."""
    encoding = store.identity.encoding
    form = (encoding if top_k is None else read_as(encoding, top_k)).model_dump(mode="json")
    free = {"quantisation", "packing", "block_rule", "contents", "features", "head", "taps", "class_means"}
    return {name: value for name, value in form.items() if name not in free}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _workers_by_part(parts: Sequence[Data], workers: int) -> list[int]:
    """Loader processes of each part: near-proportional to its samples, one at least; none where none are wanted."""
    total = sum(len(part) for part in parts)
    return [max(1, round(workers * len(part) / total)) if workers else 0 for part in parts]
