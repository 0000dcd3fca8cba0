"""The views of an extraction: its data set, its transform and their plan, as settings name them."""

from kdcache.base.limits import MANIFEST_LIMIT
from kdcache.base.progress import Progress, silent
from kdcache.pipelines.settings import ExtractSettings
from kdcache.places.opening import open_folder
from kdcache.store.layout import MANIFEST
from kdcache.store.manifest import Identity, parse_manifest
from kdcache.store.plan import ViewPlan
from kdcache.views.data import Data
from kdcache.views.reading import with_unread_probes
from kdcache.views.sources import open_data
from kdcache.views.transforms import Transform, open_plan


def open_views(settings: ExtractSettings, progress: Progress = silent) -> tuple[Data, Transform, ViewPlan]:
    """Open data set and transform. Raises InvalidInputError. A fresh process does the same to draw samples again."""
    stored = stored_identity(settings)
    data = open_data(settings.data, settings.data_set, labels=settings.labels, progress=progress)
    data = with_unread_probes(data) if settings.on_bad_sample == "strike" else data
    transform, plan = open_plan(
        settings.transform,
        settings.transform_set,
        mix=settings.mix,
        mix_alpha=settings.mix_alpha,
        seed=settings.seed,
        like=stored.plan.transform if stored else None,
    )
    return data, transform, plan


def stored_identity(settings: ExtractSettings) -> Identity | None:
    """The identity of the store that stands already, None where there is none."""
    data = open_folder(settings.store).get(MANIFEST, limit=MANIFEST_LIMIT)
    return None if data is None else parse_manifest(data, settings.store).identity
