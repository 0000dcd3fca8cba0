"""A point's name is that of its run's folder: swept values for people, and a digest of all values."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from kdcache.pipelines.settings import TrainSettings
from kdcache.training.run_record import WEIGHTS, weights_apart

# settings that change no result
NAMELESS = {
    "run",
    "workers",
    "worker_start",
    "device",
    "checkpoint_steps",
    "keep_epochs",
    "accept_drift",
    "compile",
} | {
    "view_cache",
    "decoded_cache",
    "view_cache_gb",
}
PLACES = {"data", "val_data", "store", "val_store", "calibration_store", "trust"}  # a moved store is the same store
LONGEST_NAME = 120  # characters, the digest included


def point_name(settings: TrainSettings, swept: dict[str, Any], folder: Path) -> str:
    """A point's name, such as `lr=0.1,seed=2-3f9a01bc`: swept values for people, and a digest of all values.

    Sweeps that stand on disk are found again: views and weights are digested as the settings that they were, and a
    folder that was named by weights in `set` keeps its name.
    """
    record = settings.as_recorded(without=NAMELESS | PLACES | {"views"})
    record["train_views"] = list(settings.views or ())
    record |= {"trust": True} if settings.trust else {}
    label = ",".join(f"{name.rpartition('.')[2]}={_value_name(value)}" for name, value in swept.items())
    label = label[: LONGEST_NAME - 9]
    by_set = f"{label}-{_digest({**dict.fromkeys(WEIGHTS), **record}, swept)}"
    if (folder / by_set).is_dir():
        return by_set
    weights = {f"set.{name}": name for name in WEIGHTS}
    return f"{label}-{_digest(weights_apart(record), {weights.get(name, name): swept[name] for name in swept})}"


def _digest(record: dict[str, Any], swept: dict[str, Any]) -> str:
    text = json.dumps([record, swept], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _value_name(value: Any) -> str:
    """A value as a part of a file name; a path or a spec gives its last part."""
    if isinstance(value, list | tuple):
        return "+".join(map(_value_name, value))
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    part = re.split(r"[/:]", text.rstrip("/"))[-1].removesuffix(".kd") or text
    return re.sub(r"[^A-Za-z0-9._+-]", "_", part)
