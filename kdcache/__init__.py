"""Ask the teacher once: cached soft labels for knowledge distillation, on views that replay exactly.

Names are imported when they are first used, so that the store side needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdcache.base.cache_options import CacheOptions
    from kdcache.base.view_span import ViewSpan
    from kdcache.errors import KdcacheError
    from kdcache.labels.full import FullLabels
    from kdcache.labels.reduction import class_logits
    from kdcache.labels.sampled_labels import SampledLabels
    from kdcache.labels.soft_labels import SoftLabels
    from kdcache.labels.topk_labels import TopKLabels
    from kdcache.measures.tally import Tally
    from kdcache.objectives.batch import Batch
    from kdcache.objectives.catalogue import make_objective
    from kdcache.objectives.kd import KD
    from kdcache.objectives.objective import Objective
    from kdcache.objectives.outputs import Outputs
    from kdcache.objectives.taps import taps
    from kdcache.pipelines.compare.stage import compare
    from kdcache.pipelines.extract.stage import extract
    from kdcache.pipelines.train.stage import train
    from kdcache.pipelines.verify.stage import verify
    from kdcache.sharing.push_pull import pull, push
    from kdcache.store.manifest import Identity
    from kdcache.store.plan import TransformSpec, ViewPlan
    from kdcache.store.store import Store
    from kdcache.training.collator import SoftLabelCollator
    from kdcache.training.loader import Loader
    from kdcache.training.loader_options import FeedOptions, LabelOptions
    from kdcache.training.run_folder import save_weights
    from kdcache.views.data import Data
    from kdcache.views.sources import open_data
    from kdcache.whole_store.calibrate import fit_temperature

_HOMES = {
    "KD": "objectives.kd",
    "Batch": "objectives.batch",
    "CacheOptions": "base.cache_options",
    "Data": "views.data",
    "FeedOptions": "training.loader_options",
    "FullLabels": "labels.full",
    "Identity": "store.manifest",
    "KdcacheError": "errors",
    "LabelOptions": "training.loader_options",
    "Loader": "training.loader",
    "Objective": "objectives.objective",
    "Outputs": "objectives.outputs",
    "SampledLabels": "labels.sampled_labels",
    "SoftLabelCollator": "training.collator",
    "SoftLabels": "labels.soft_labels",
    "Store": "store.store",
    "Tally": "measures.tally",
    "TopKLabels": "labels.topk_labels",
    "TransformSpec": "store.plan",
    "ViewPlan": "store.plan",
    "ViewSpan": "base.view_span",
    "class_logits": "labels.reduction",
    "compare": "pipelines.compare.stage",
    "extract": "pipelines.extract.stage",
    "fit_temperature": "whole_store.calibrate",
    "make_objective": "objectives.catalogue",
    "open_data": "views.sources",
    "pull": "sharing.push_pull",
    "push": "sharing.push_pull",
    "save_weights": "training.run_folder",
    "taps": "objectives.taps",
    "train": "pipelines.train.stage",
    "verify": "pipelines.verify.stage",
}

__all__ = [
    "KD",
    "Batch",
    "CacheOptions",
    "Data",
    "FeedOptions",
    "FullLabels",
    "Identity",
    "KdcacheError",
    "LabelOptions",
    "Loader",
    "Objective",
    "Outputs",
    "SampledLabels",
    "SoftLabelCollator",
    "SoftLabels",
    "Store",
    "Tally",
    "TopKLabels",
    "TransformSpec",
    "ViewPlan",
    "ViewSpan",
    "class_logits",
    "compare",
    "extract",
    "fit_temperature",
    "make_objective",
    "open_data",
    "pull",
    "push",
    "save_weights",
    "taps",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kdcache' has no attribute {name!r}")
    return getattr(importlib.import_module(f"kdcache.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
