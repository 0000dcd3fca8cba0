"""The validation split: which data, in which views, beside which stores of its teachers; and the rows held out too."""

from collections.abc import Sequence
from typing import Any

from kdcache.base.launch import ALONE, Launch
from kdcache.errors import InvalidInputError
from kdcache.objectives.targets import Combine
from kdcache.pipelines.settings import AUTO, TrainSettings
from kdcache.pipelines.train.class_matching import require_same_labels
from kdcache.pipelines.train.texts import require_same_tokenizer
from kdcache.pipelines.train.views import own_transform, require_whole, view_normalisation
from kdcache.store.plan import ViewPlan
from kdcache.store.store import Store
from kdcache.training.batch_stream import BatchStream
from kdcache.training.loader import Loader
from kdcache.training.loader_options import FeedOptions, LabelOptions
from kdcache.views.chosen_rows import OF_CLASSES
from kdcache.views.class_numbers import numbered_by, require_alike
from kdcache.views.data import Data
from kdcache.views.own_place import require_own_place
from kdcache.views.sources import of_whole, open_data
from kdcache.views.transforms import PRESETS, build_transform, clean_arguments, require_transform

ROWS = 256  # of a batch, or tokens where they are more than a text
Source = tuple[str, dict[str, Any]]
"""The spec and the arguments of a data set."""


def validation_source(settings: TrainSettings) -> Source:
    """The spec and the arguments of the validation data: its own, or the training's with other arguments."""
    if settings.val_data:
        return settings.val_data, settings.val_set
    return settings.data, {**of_whole(settings.data, settings.data_set, keep=OF_CLASSES), **settings.val_set}


def require_own_folder(settings: TrainSettings) -> None:
    """Raises InvalidInputError for a run in a store or among the pictures of a split."""
    require_own_place(settings.run, settings.data, settings.data_set)
    if settings.validates:
        require_own_place(settings.run, *validation_source(settings))


def validation_loader(
    settings: TrainSettings, training: BatchStream, device: str, launch: Launch = ALONE
) -> Loader | None:
    """The validation split in views of its own stores, or under the validation transform; None where none is named. Its
    labels are numbered by the names of the training data's classes."""
    if not settings.validates:
        return None
    spec, arguments = validation_source(settings)
    data = numbered_by(open_data(spec, arguments, labels=settings.labels), training.data.class_names)
    require_same_tokenizer(data, training.data)
    stores = [Store.open(url) for url in settings.val_store]
    require_same_labels(settings, data, stores)
    _require_weights(settings)
    for store in stores:
        names, name = store.identity.dataset.class_names, str(store.folder.root)
        require_alike(names, training.data.class_names, classes=store.identity.teacher.label_classes, store=name)
        store.identity.encoding.require_log_probs("--val-store")
        require_whole(store)
    return evaluation_loader(settings, spec, data, stores, training, device, launch)


def evaluation_loader(
    settings: TrainSettings,
    spec: str,
    data: Data,
    stores: Sequence[Store],
    training: BatchStream,
    device: str,
    launch: Launch = ALONE,
) -> Loader:
    """Rows of the data set of a spec, in the view of their stores or under the validation transform, once and in
    order."""
    plan, transform = _views(settings, spec, stores, training)
    mean, std = view_normalisation(settings, data, transform, plan, strikes=bool(stores))
    feed = FeedOptions(
        settings.workers, device, mean, std, plan, own_transform(plan, transform),
        rank=launch.rank, world_size=launch.world_size, worker_start=settings.worker_start, caches=settings.caches,
    )  # fmt: skip
    options = LabelOptions(accept_drift=settings.accept_drift, by_class=True)
    return Loader(data, stores, batch_size=max(1, ROWS // data.sequence), epochs=1, labels=options, feed=feed)


def held_out_loader(
    settings: TrainSettings, training: BatchStream, validating: Loader | None, device: str, launch: Launch = ALONE
) -> Loader | None:
    """The held-out rows that terms are selected by, in views as the validation's; None where none are named. Raises
    InvalidInputError for rows that are learned from or validated, and where none has a label."""
    if not settings.select_set:
        return None
    source = settings.data, {**of_whole(settings.data, settings.data_set, keep=OF_CLASSES), **settings.select_set}
    data = numbered_by(open_data(*source, labels=settings.labels), training.data.class_names)
    if not data.is_labelled:
        raise InvalidInputError(
            f"no row that --select-set {_words(settings.select_set)} names has a label; name labelled ones"
        )
    others = [(training.data, (settings.data, settings.data_set), "learned from")]
    if validating is not None:
        others.append((validating.data, validation_source(settings), "the validation's"))
    for other, other_source, role in others:
        if common := _common_rows(data, source, other, other_source):
            raise InvalidInputError(
                f"{common} of the {len(data.ids)} rows that --select-set {_words(settings.select_set)} names are "
                f"{role}: a selection by them would flatter itself; name others, such as range=START:STOP beyond "
                "those of --data-set"
            )
    return evaluation_loader(settings, source[0], data, (), training, device, launch)


def _common_rows(data: Data, source: Source, other: Data, other_source: Source) -> int:
    """The number of rows that two data sets share, as far as their ids can tell: ids of one whole are compared."""
    if data.identity() == other.identity():
        return len(data)
    if source[0] != other_source[0]:
        return 0
    wholes = [of_whole(spec, arguments) for spec, arguments in (source, other_source)]
    if wholes[0] != wholes[1] and len({open_data(source[0], whole).identity() for whole in wholes}) > 1:
        return 0
    return len(set(data.ids) & set(other.ids))


def _words(arguments: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in arguments.items())


def judged_as(settings: TrainSettings) -> tuple[Combine, tuple[float, ...]]:
    """How the validation's stores become one, and their weights. Losses that are averaged have no answer of their own:
    there the probabilities are."""
    combine: Combine = "probabilities" if settings.combine == "losses" else settings.combine
    return combine, settings.ensemble_weights if len(settings.val_store) > 1 else ()


def _require_weights(settings: TrainSettings) -> None:
    weights, stores = len(settings.ensemble_weights), len(settings.val_store)
    if weights and stores > 1 and weights != stores:
        raise InvalidInputError(
            f"--ensemble-weights names {weights} weights, --val-store {stores} stores, which are compared as one; "
            "name as many, in the order of the weights"
        )


def _views(
    settings: TrainSettings, data_spec: str, stores: Sequence[Store], training: BatchStream
) -> tuple[ViewPlan, Any | None]:
    """The plan of the validation's views, and its transform; None: that which the stores' plan names."""
    if stores and settings.val_transform in (AUTO, "none") and not settings.val_transform_set:
        return stores[0].identity.plan, None  # the loader asks for a transform of the user's own by its name
    name, arguments = _transform(settings, data_spec, training)
    stored = stores[0].identity.plan if stores else None
    transform, spec = build_transform(name, arguments, stored.transform if stored else None)
    if stored is None:
        return ViewPlan(transform=spec), transform
    advice = "leave --val-transform to the store, or extract another"
    require_transform(spec, stored.transform, str(stores[0].folder.root), advice)
    return stored, transform


def _transform(settings: TrainSettings, data_spec: str, training: BatchStream) -> tuple[str, dict[str, Any]]:
    """The name and arguments of the validation transform. By default a folder's pictures, which are of many sizes, are
    resized and cropped at their centre to the size that the training's transform crops to."""
    if settings.val_transform != AUTO:
        return settings.val_transform, settings.val_transform_set
    spec, clean = training.plan.transform, dict[str, Any]()
    if data_spec.startswith("folder:"):
        clean = clean_arguments(spec)
        if spec.name not in PRESETS:
            height, width = next(iter(training.spread_views(1).values())).shape[-2:]
            clean = {"size": height} if height == width else {}
    return ("center", {**clean, **settings.val_transform_set}) if clean else ("none", settings.val_transform_set)
