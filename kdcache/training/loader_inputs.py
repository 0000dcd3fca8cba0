"""The loader's inputs: stores that fit the data set, and the positions that its epochs use."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kdcache.base.arrays import IntArray
from kdcache.base.progress import Progress, silent
from kdcache.base.records import differences, require_equal
from kdcache.base.view_span import ViewSpan, shown_spans
from kdcache.errors import InvalidInputError, MismatchError, MissingBlockError
from kdcache.labels.encoding import Contents
from kdcache.store.plan import ViewPlan
from kdcache.store.segment_layout import read_arrays
from kdcache.store.store import Store
from kdcache.training.batch_order import BatchOrder
from kdcache.training.loader_options import FeedOptions, LabelOptions
from kdcache.views.cache_keys import open_caches
from kdcache.views.data import Data
from kdcache.views.draw import ViewDataset
from kdcache.views.other_data import other_data_error
from kdcache.views.pixel_caches import PixelCaches
from kdcache.views.reading import as_extracted
from kdcache.views.transforms import is_known, stored_transform


def fitting(stores: Sequence[Store], data: Data, *, words: str = "", progress: Progress = silent) -> Data:
    """The data set, to which stores must belong, of one order and view plan. Its identity is read as the stores have
    it: where samples are struck, one that cannot be read is known by its id alone. `words`: see `data_words`.

    Raises MismatchError, MissingBlockError, and InvalidInputError for teachers of other classes.
    """
    data = as_extracted(data, stores)
    identity = data.identity() if stores else None
    for store in stores:
        assert identity is not None
        name = str(store.folder.root)
        if problems := differences(store.identity.dataset, identity, "dataset."):
            headline = f"{name} is of another data set:"
            advice = "train on the data set that the store was extracted from, or extract a store for this one"
            raise other_data_error(store, data, problems, headline, advice=advice, words=words, progress=progress)
        advice = "an ensemble needs stores of one order and one view plan: extract with the same seed and transform"
        first = stores[0].identity
        require_equal(first.order, store.identity.order, f"{name} has another order:", advice, "order.")
        require_equal(first.plan, store.identity.plan, f"{name} has another view plan:", advice, "views.")
        if (classes := store.identity.teacher.label_classes) != first.teacher.label_classes:
            raise InvalidInputError(f"{name} has {classes} classes, not {first.teacher.label_classes}")
        if not store.every_view:
            raise MissingBlockError(f"{name} has no views yet; run kdcache extract")
    return data


def require_same_deal(state: Mapping[str, Any], description: Mapping[str, Any]) -> None:
    """Raises MismatchError, naming both values, for a state of a loader that deals other batches than one of this
    description."""
    pairs = {name: (state.get(name), value) for name, value in description.items()}
    if unequal := [(name, repr(a), repr(b)) for name, (a, b) in pairs.items() if a != b]:
        advice = "make the loader with the arguments of the one that the state is of"
        raise MismatchError("the state is of another loader:", unequal, advice, ("the state", "this loader"))


def place_of(state: Mapping[str, Any], epochs: int, steps: Callable[[int], int]) -> tuple[int, int]:
    """The epoch and step of a state, of a loader whose epoch e has steps(e) batches. Raises InvalidInputError for a
    place that there is not."""
    epoch, step = int(state.get("epoch", -1)), int(state.get("step", -1))
    if not (0 <= epoch < epochs and 0 <= step < steps(epoch)) and (epoch, step) != (epochs, 0):
        raise InvalidInputError(
            f"the state's place is epoch {epoch}, step {step}; this loader has {epochs} epochs of {steps(0)} steps, "
            "which count from 0"
        )
    return epoch, step


def answered_positions(stores: Sequence[Store], views: Sequence[int], positions: IntArray | range) -> IntArray | range:
    """Those of ascending positions that have an answer of every store in all of these views: epochs of different views
    then have the same rows. Positions of texts are those of texts. Raises InvalidInputError where none has."""
    struck = [segment for store in stores for segment in store.segments if len(segment.struck())]
    absent = [segment.struck(view) for segment in struck for view in views if view in segment.views]
    if not absent:
        return positions
    sequence = stores[0].identity.dataset.sequence
    answered = np.setdiff1d(np.asarray(positions, dtype=np.int64), np.concatenate(absent) // sequence)
    if not len(answered):
        raise InvalidInputError(f"all {len(positions)} positions are struck in some view: none has an answer; extract")
    return answered


def chosen_positions(positions: IntArray | None, rows: int) -> IntArray | range:
    """Ascending positions, all by default. Raises InvalidInputError for none, for a row twice or outside."""
    if positions is None:
        return range(rows)
    positions = np.sort(np.asarray(positions, dtype=np.int64))
    count = len(positions)
    if not count or positions[0] < 0 or positions[-1] >= rows or len(np.unique(positions)) < count:
        span = f"{count} positions from {positions[0]} to {positions[-1]}" if count else "no positions"
        raise InvalidInputError(f"{span} were given; give each of some positions 0 to {rows - 1} once")
    return positions


def row_bytes(stores: Sequence[Store], options: LabelOptions = LabelOptions()) -> int:  # noqa: B008  frozen
    """Bytes in memory of one row, or of a text, of one view over all stores, of the arrays that the options read."""
    total = 0
    for number, store in enumerate(stores):
        layout = store.segments[0].layout
        features, taps = options.outputs_of(number)
        for name in read_arrays(layout, store.identity.encoding, features=features, taps=taps):
            spec = layout.arrays[name]
            assert spec.block_axis is not None
            a_row = int(np.prod(spec.shape[1:])) // spec.shape[spec.block_axis] * np.dtype(spec.dtype).itemsize
            total += a_row * store.identity.dataset.sequence
    return total


def contents_of_stores(stores: Sequence[Store]) -> tuple[Contents, ...]:
    """What the stores' content fingerprints are taken over."""
    return tuple(sorted({kind for store in stores for kind in store.identity.encoding.kinds_of_contents}))


def view_dataset(
    stores: Sequence[Store], data: Data, order: IntArray, plan: ViewPlan, feed: FeedOptions, *, accept_drift: bool
) -> ViewDataset:
    """The views of a data set in an order, drawn with the caches that the options name. There are none under drift that
    was accepted, for which another picture of a cache would pass."""
    kinds, options, transform = contents_of_stores(stores), feed.caches, feed.transform
    checked = bool(stores) and all(store.identity.encoding.contents for store in stores)
    if accept_drift and options.are_named:
        caches = PixelCaches(notes=("nothing is cached: under drift that is accepted every view is drawn",))
    elif options.decoded and transform is not None and not is_known(transform):
        caches = PixelCaches(
            notes=(
                "nothing is cached: a transform of your own may read more of a picture than its pixels; --view-cache "
                "keeps its views, --decoded-cache serves torchvision's transforms alone",
            )
        )
    else:
        caches = open_caches(options, data, plan, kinds, checked=checked, is_preset=transform is None)
    transform = transform or stored_transform(plan.transform)
    return ViewDataset(data.samples, order, plan, transform, kinds, data.ids, caches=caches)


def views_in_turn(stores: Sequence[Store], views: ViewSpan | None, epochs: int) -> tuple[int, ...]:
    """Views that epochs use in turn: those asked for, or all that the stores have in common."""
    views = None if views is None else ViewSpan.parse(views)
    if not stores:
        return tuple(views or range(max(epochs, 1)))
    common_views = sorted(set.intersection(*(set(store.every_view) for store in stores)))
    if not common_views:
        lists = "; ".join(f"{store.folder.root} has {list(store.every_view)}" for store in stores)
        raise InvalidInputError(f"the stores have no view in common: {lists}; extract the same views for both")
    if views is not None and (absent_views := [view for view in views if view not in common_views]):
        raise InvalidInputError(
            f"views {views} were asked for; the stores have {common_views[:20]} in common, not {absent_views[:20]}: "
            "choose among these, or extract more"
        )
    return tuple(views or common_views)


def require_same_views(stores: Sequence[Store], views: ViewSpan | None) -> None:
    """Stores of parts of a data set must all hold the views in use. Raises InvalidInputError, naming those of each."""
    if views is None and len({store.every_view for store in stores}) > 1:
        lists = "; ".join(f"{store.folder.root} has {shown_spans(s.views for s in store.segments)}" for store in stores)
        raise InvalidInputError(
            f"the stores' views differ: {lists}; choose some that all have with --views, or extract the others"
        )


def deal_values(order: BatchOrder) -> dict[str, Any]:
    """The values of an order by which two loaders deal the same batches of the same positions."""
    return {
        "seed": order.seed,
        "batch_size": order.batch_size,
        "drop_last": order.drop_last,
        "plan": order.plan.model_dump(mode="json"),
        "windows": order.window_count,
        "steps": order.steps(0),
    }
