"""Settings of a training that have no effect together with the others: each is a note, since a sweep may need them."""

from collections.abc import Iterator

from kdcache.objectives.ramps import Ramp
from kdcache.pipelines.settings import TrainSettings


def unused_notes(settings: TrainSettings) -> Iterator[str]:
    """A note on each setting that changes nothing in this training."""
    if settings.schedule == "step" and not any(epoch < settings.epochs for epoch in settings.step_epochs):
        given = f"with --step-epochs {','.join(map(str, settings.step_epochs))} never"
        yield f"--schedule step {given if settings.step_epochs else 'without --step-epochs never'} lowers the rate"
    if settings.step_epochs and settings.schedule != "step":
        yield f"--step-epochs has no effect under --schedule {settings.schedule}"
    if settings.warmup_epochs >= settings.epochs:
        yield (
            f"--warmup-epochs {settings.warmup_epochs:g} is no less than the {settings.epochs} epochs: the rate rises "
            f"to the end, to {settings.epochs / settings.warmup_epochs:.3g} of --lr"
        )
    if not settings.validates:
        names = [name for name in ("val_transform", "val_transform_set", "val_epochs") if _is_given(settings, name)]
        if names:
            yield f"{_flags(names)} has no effect without a validation split: give --val-set, --val-data or --val-store"
    for name, text in settings.over_epochs.items():
        ramp = Ramp.parse(str(text), name)
        values = {ramp(0.0), ramp(settings.epochs)} | {v for time, v in ramp.points if 0 < time < settings.epochs}
        if len(values) == 1:
            yield f"--over-epochs {name}={text} is {values.pop():g} throughout the {settings.epochs} epochs"
    if settings.optimizer == "adamw" and _is_given(settings, "momentum"):
        yield "--momentum is of SGD, and has no effect on AdamW"
    if settings.calibration_store and settings.temperature != "calibrated":
        yield "--calibration-store has no effect without --temperature calibrated"


def _is_given(settings: TrainSettings, name: str) -> bool:
    return bool(getattr(settings, name) != TrainSettings.model_fields[name].default)


def _flags(names: list[str]) -> str:
    return " and ".join("--" + name.replace("_", "-") for name in names)
