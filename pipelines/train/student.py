"""Student and loaders are built from train's settings; what does not fit is refused before the first step."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from kdcache.base.launch import ALONE, Launch
from kdcache.errors import InvalidInputError
from kdcache.labels.encodings import read_as
from kdcache.networks.build import build_network
from kdcache.networks.preparation import Preparation
from kdcache.networks.weights import load_weights
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.subclasses import student_subclasses, takes_classes
from kdcache.pipelines.train.taken import NOTHING, Taken
from kdcache.pipelines.train.views import own_transform, require_whole, view_normalisation
from kdcache.store.lineage import read_subclasses
from kdcache.store.plan import ViewPlan
from kdcache.store.store import Store
from kdcache.store.whole_arrays import make_order
from kdcache.training.batch_stream import BatchStream
from kdcache.training.loader import Loader
from kdcache.training.loader_options import FeedOptions, LabelOptions
from kdcache.views.data import Data
from kdcache.views.readable import first_view
from kdcache.views.transforms import PRESETS, build_transform, open_plan, require_transform, stored_transform


def require_usable(stores: list[Store], settings: TrainSettings) -> None:
    """Refuse what the stores cannot serve, before the first step. Raises InvalidInputError or MissingBlockError."""
    for store in stores:
        require_whole(store)
        read_as(store.identity.encoding, settings.top_k)
        largest_k = min(store.identity.kept, store.identity.space.visible) // store.identity.teacher.subclasses
        if settings.top_k is not None and settings.top_k > largest_k:
            raise InvalidInputError(
                f"top-k {settings.top_k} was asked for; {store.folder.root} keeps {largest_k} classes"
            )
        if (settings.transform != "none" or settings.transform_set) and store.identity.plan.transform.name in PRESETS:
            _require_named_transform(settings, store)
        mix = store.identity.plan.mix
        if settings.mix not in ("none", mix):
            raise InvalidInputError(
                f"the views of {store.folder.root} are mixed by {mix}, the settings name {settings.mix}; "
                "leave --mix to the store, or extract another"
            )


def require_reached(settings: TrainSettings) -> None:
    """Raises InvalidInputError for kept epochs that the run does not reach."""
    if wrong := [epoch for epoch in settings.keep_epochs if not 1 <= epoch <= settings.epochs]:
        raise InvalidInputError(
            f"--keep-epochs names {', '.join(map(str, wrong))}, the run has {settings.epochs} epochs; they count from "
            f"1 to {settings.epochs}"
        )


def inputs_of(loader: BatchStream) -> dict[str, Any]:
    """The inputs of a loader by identity and not by path: data set, view plan, views, and the stores' identities."""
    dataset = loader.data.identity().model_dump(mode="json", exclude={"class_names"})
    stores = [store.identity.digest for store in loader.stores]
    plan = loader.plan.model_dump(mode="json")
    return {
        "dataset": dataset,
        "plan": plan,
        "views": list(loader.cycle) if stores else [],
        "stores": stores,
    }


def _require_named_transform(settings: TrainSettings, store: Store) -> None:
    stored = store.identity.plan.transform
    _, spec = build_transform(settings.transform, settings.transform_set, stored)
    require_transform(spec, stored, str(store.folder.root), "leave --transform to the store, or extract another")


def train_loader(
    settings: TrainSettings,
    data: Data,
    stores: list[Store],
    device: str,
    launch: Launch = ALONE,
    *,
    taken: Taken = NOTHING,
    build: Callable[..., BatchStream] = Loader,
) -> BatchStream:
    """The loader of the training split, under the stores' view plan; without stores under the settings' plan. `taken`:
    the taps and negatives that its students learn from. `build`: makes it of the data, the stores and `Loader`'s
    settings."""
    transform, plan = None, None
    if not stores:
        transform, plan = open_plan(
            settings.transform,
            settings.transform_set,
            mix=settings.mix,
            mix_alpha=settings.mix_alpha,
            seed=settings.seed,
        )
    elif stores[0].identity.plan.transform.name not in PRESETS:
        transform, plan = _user_transform(settings, stores[0])
    mean, std = view_normalisation(settings, data, transform, plan or stores[0].identity.plan, strikes=bool(stores))
    return build(
        data,
        stores,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        seed=settings.seed,
        views=settings.views,
        labels=LabelOptions(
            top_k=settings.top_k,
            class_means=settings.tail == "class-mean",
            taps=taken.taps,
            negatives=taken.negatives,
            by_class=takes_classes(settings, stores),
            accept_drift=settings.accept_drift,
            memory_bytes=int(settings.memory_gb * 1e9),
        ),
        feed=FeedOptions(
            workers=settings.workers,
            worker_start=settings.worker_start,
            device=device,
            mean=mean,
            std=std,
            plan=plan,
            transform=own_transform(plan, transform),
            order=None if stores else make_order(len(data), "shuffled", settings.seed, sequence=data.sequence)[0],
            rank=launch.rank,
            world_size=launch.world_size,
            caches=settings.caches,
        ),
    )


def example_views(settings: TrainSettings, data: Data, stores: list[Store]) -> Tensor:
    """The first view of the training split, prepared, twice: [2, ch, H, W] f32."""
    transform = None
    if not stores:
        transform, plan = open_plan(
            settings.transform,
            settings.transform_set,
            mix=settings.mix,
            mix_alpha=settings.mix_alpha,
            seed=settings.seed,
        )
    else:
        plan = stores[0].identity.plan
        if plan.transform.name not in PRESETS:
            transform, plan = _user_transform(settings, stores[0])
    view = first_view(transform or stored_transform(plan.transform), data.samples, plan.seed, strikes=bool(stores))
    mean, std = view_normalisation(settings, data, transform, plan, strikes=bool(stores))
    return Preparation(mean, std, "cpu")(view[None].expand(2, *view.shape))


def _user_transform(settings: TrainSettings, store: Store) -> tuple[Any, ViewPlan]:
    """The user's own transform, which the settings must name again: nothing that a store names is ever imported."""
    plan = store.identity.plan
    if settings.transform == "none":
        raise InvalidInputError(
            f"the store's views were drawn by {plan.transform.name}, a transform of the user's own; name it again with "
            f"--transform {plan.transform.name} and the same --transform-set"
        )
    transform, spec = build_transform(settings.transform, settings.transform_set, plan.transform)
    require_transform(spec, plan.transform, str(store.folder.root), "use the transform that the store was made with")
    return transform, plan


def build_student(settings: TrainSettings, data: Data, stores: list[Store]) -> tuple[nn.Module, tuple[str, ...]]:
    """Build the student; it answers the store's classes, or the data set's where there is no store, each as often as it
    has subclasses. Also returns notes on the weights file that it starts from."""
    classes = stores[0].identity.teacher.label_classes if stores else data.classes
    subclasses = student_subclasses(settings, stores)
    network = build_network(settings.student, settings.student_set, classes * subclasses, "student")
    if not settings.weights:
        return network, ()
    saved = read_subclasses(settings.weights)
    notes = load_weights(network, settings.weights, "student", (saved, subclasses))
    if saved < subclasses:
        notes += (
            f"weights {settings.weights}: they name no subclasses; each {subclasses} consecutive logits are a class",
        )
    return network, notes
