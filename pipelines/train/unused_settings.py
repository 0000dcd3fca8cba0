"""Settings of a training that have no effect together with the others: each is a note, since a sweep may need them."""

from collections.abc import Iterator

from kdcache.base.pacing import Pacing
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
            yield f"{_idle(names)} without a validation split: give --val-set, --val-data or --val-store"
    for name, text in settings.over_epochs.items():
        ramp = Ramp.parse(str(text), name)
        values = {ramp(0.0), ramp(settings.epochs)} | {v for time, v in ramp.points if 0 < time < settings.epochs}
        if len(values) == 1:
            yield f"--over-epochs {name}={text} is {values.pop():g} throughout the {settings.epochs} epochs"
    if settings.curriculum and (pace := Pacing.parse(settings.curriculum)).epochs >= settings.epochs:
        share = pace.share(settings.epochs - 1)
        yield (
            f"--curriculum {settings.curriculum} takes up all rows at epoch {pace.epochs}, and the run has "
            f"{settings.epochs}: at most {share:.2f} of the labelled rows count"
        )
    pair = ("select_steps", "select_rate")
    if not settings.select_set and (names := [name for name in pair if _is_given(settings, name)]):
        yield f"{_idle(names)} without held-out rows: give --select-set"
    if settings.optimizer != "sgd" and _is_given(settings, "momentum"):
        name = "AdamW" if settings.optimizer == "adamw" else f"{settings.optimizer}: give --optimizer-set"
        yield f"--momentum is of SGD, and has no effect on {name}"
    if ":" not in settings.optimizer and settings.optimizer_set:
        yield f"--optimizer-set is for an optimiser of your own, and has no effect on {settings.optimizer}"
    yield from _without_stores(settings)


def _without_stores(settings: TrainSettings) -> Iterator[str]:
    """Notes on settings of soft labels, where there are none, and of several stores, where there are fewer."""
    if not settings.store:
        drift = () if settings.val_store else ("accept_drift",)
        if names := [name for name in ("tail", "top_k", "calibration_store", *drift) if _is_given(settings, name)]:
            yield f"{_idle(names)} without a store: give --store"
    elif settings.calibration_store and settings.temperature != "calibrated":
        yield "--calibration-store has no effect without --temperature calibrated"
    if max(len(settings.store), len(settings.val_store)) < 2:
        pair = ("combine", "ensemble_weights")
        if names := [name for name in pair if _is_given(settings, name)]:
            yield f"{_idle(names)} on fewer than two stores: repeat --store"


def _is_given(settings: TrainSettings, name: str) -> bool:
    return bool(getattr(settings, name) != TrainSettings.model_fields[name].default)


def _idle(names: list[str]) -> str:
    """The flags of these settings, and that they have no effect."""
    *flags, last = ["--" + name.replace("_", "-") for name in names]
    return f"{', '.join(flags)} and {last} have no effect" if flags else f"{last} has no effect"
