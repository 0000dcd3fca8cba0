"""The caches that a data set's views are drawn with: which keys they have, and why there may be none.

A key is all that pixels depend on: samples, transform and seed, decoder, versions, the processor's capability. With a
store, each row is compared with it as ever. Without one, and with stores that know no contents, pictures count by
the size and time of their files; a transform or a data set of the user's own is then not cached.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdcache.base.cache_options import CacheOptions
from kdcache.labels.encoding import Contents
from kdcache.store.plan import ViewPlan
from kdcache.views.cache_folder import CacheFolder
from kdcache.views.data import Data
from kdcache.views.decoded_cache import DecodedCache
from kdcache.views.pixel_caches import NO_CACHES, PixelCaches
from kdcache.views.provenance import provenance
from kdcache.views.source_samples import state_digest
from kdcache.views.transforms import PRESETS
from kdcache.views.view_cache import ViewCache

FORMAT = 1
VERSIONS = ("kdcache", "torch", "torchvision", "pillow", "numpy")


def open_caches(
    options: CacheOptions,
    data: Data,
    plan: ViewPlan,
    contents: Sequence[Contents],
    *,
    checked: bool,
    is_preset: bool = True,
) -> PixelCaches:
    """The caches of a data set under a view plan. `contents`: what content fingerprints are taken over; `checked`: a
    store compares pixels and contents of each row with its own; `is_preset`: the transform is the plan's own preset, as
    far as the caller knows. Raises InvalidInputError for a folder of another user."""
    if not options.are_named:
        return NO_CACHES
    pictures = None if checked else state_digest(data.samples, np.arange(len(data)))
    if not checked and (pictures is None or not is_preset or plan.transform.name not in PRESETS):
        part = "transform" if pictures is not None else "data set"
        return PixelCaches(
            notes=(
                f"nothing is cached: without a store that knows its samples, kdcache cannot tell whether a {part} of "
                "your own still gives what it gave; presets on data that lie in files are cached",
            )
        )
    key = {
        "format": FORMAT,
        "samples": data.identity().model_dump(mode="json", include={"rows", "ids", "probes"}),
        "contents": list(contents),
        **({} if pictures is None else {"pictures": pictures}),
        **_machine(data.decoder),
    }
    limit = int(options.gigabytes * 1e9)
    views = decoded = None
    if options.views:
        drawn = {"transform": plan.transform.model_dump(mode="json"), "seed": plan.seed}
        views = ViewCache(CacheFolder(_absolute(options.views), "views", {**key, **drawn}, limit), len(data))
    if options.decoded:
        decoded = DecodedCache(CacheFolder(_absolute(options.decoded), "decoded", key, limit), len(data))
    for folder in [cache.folder for cache in (views, decoded) if cache is not None]:
        try:
            folder.begin()
        except OSError as error:
            return PixelCaches(notes=(f"nothing is cached: {folder.root} cannot be opened ({error.strerror})",))
    return PixelCaches(views, decoded)


def _machine(decoder: str) -> dict[str, Any]:
    """The decoder, versions and processor that pixels depend on."""
    here = provenance("cpu", decoder=decoder)
    versions = {name: here.versions[name] for name in VERSIONS if name in here.versions}
    return {"decoder": here.decoder, "versions": versions, "cpu": here.cpu_capability}


def _absolute(folder: str) -> Path:
    return Path(folder).expanduser().absolute()
