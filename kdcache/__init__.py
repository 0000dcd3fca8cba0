"""Ask the teacher once: cached soft labels for knowledge distillation, on views that replay exactly.

Names are imported when they are first used, so that the store side needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdcache.batch import Batch
    from kdcache.datasets import Data, open_data
    from kdcache.errors import KdcacheError
    from kdcache.loader import Loader
    from kdcache.manifest import Identity
    from kdcache.objectives import KD, Objective, make_objective
    from kdcache.plan import TransformSpec, ViewPlan
    from kdcache.softlabels import FullLabels, SoftLabels, TopKLabels
    from kdcache.store import Store

_HOMES = {
    "KD": "objectives",
    "Objective": "objectives",
    "make_objective": "objectives",
    "Batch": "batch",
    "Data": "datasets",
    "FullLabels": "softlabels",
    "Identity": "manifest",
    "KdcacheError": "errors",
    "Loader": "loader",
    "SoftLabels": "softlabels",
    "Store": "store",
    "TopKLabels": "softlabels",
    "TransformSpec": "plan",
    "ViewPlan": "plan",
    "open_data": "datasets",
}

__all__ = [
    "KD",
    "Batch",
    "Data",
    "FullLabels",
    "Identity",
    "KdcacheError",
    "Loader",
    "Objective",
    "SoftLabels",
    "Store",
    "TopKLabels",
    "TransformSpec",
    "ViewPlan",
    "make_objective",
    "open_data",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kdcache' has no attribute {name!r}")
    return getattr(importlib.import_module(f"kdcache.{_HOMES[name]}"), name)
