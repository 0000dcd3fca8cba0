"""The views of a split as training takes them: whole stores, normalised images."""

from typing import Any

from kdcache.errors import MissingBlockError
from kdcache.networks.preparation import normalisation
from kdcache.pipelines.settings import TrainSettings
from kdcache.store.plan import ViewPlan
from kdcache.store.store import Store
from kdcache.views.data import Data
from kdcache.views.readable import first_view
from kdcache.views.transforms import PRESETS, stored_transform


def require_whole(store: Store) -> None:
    """Raises MissingBlockError for a store some of whose blocks are not committed."""
    for segment in store.segments:
        if len(segment.commits()) < segment.layout.blocks:
            raise MissingBlockError(
                f"{store.folder.root}: {segment.layout.name} has {len(segment.commits())} of {segment.layout.blocks} "
                "blocks; finish it with the same `kdcache extract`, or pin an older seal as STORE@ID"
            )


def view_normalisation(
    settings: TrainSettings, data: Data, transform: Any, plan: ViewPlan, *, strikes: bool
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std by channel, of the settings or the defaults for the first view's channels. `strikes`:
    the first samples may be struck, and cannot be read."""
    if data.sequence > 1:
        return (), ()
    transform = transform or stored_transform(plan.transform)
    view = first_view(transform, data.samples, plan.seed, strikes=strikes)
    is_float = view.dtype.is_floating_point
    return normalisation(settings.mean, settings.std, channels=view.shape[0], floating=is_float)


def own_transform(plan: ViewPlan | None, transform: Any) -> Any:
    """A transform that is a user's own; None for a plan's preset, which the loader makes itself."""
    return None if plan is not None and plan.transform.name in PRESETS else transform
