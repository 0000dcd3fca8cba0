"""The record of a run's settings: weights of the objective stand beside its other settings, as they always have."""

from typing import Any

WEIGHTS = ("w_ce", "w_kd")


def weights_apart(record: dict[str, Any]) -> dict[str, Any]:
    """A record of train's settings with the weights in `set` as entries of their own, None where `set` has none.

    Runs of old have them there, or in `set` where `--set` gave them. A record without `set` is returned as it is.
    """
    if not isinstance(record.get("set"), dict):
        return record
    arguments = dict(record["set"])
    weights = {name: _number(arguments.pop(name, record.get(name))) for name in WEIGHTS}
    return {**record, **weights, "set": arguments}


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
