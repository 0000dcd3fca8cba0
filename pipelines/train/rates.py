"""The learning rate of a run by step, from its settings."""

from collections.abc import Callable

from kdcache.pipelines.settings import TrainSettings
from kdcache.training.optimisers import rate_schedule


def rate_multiplier(settings: TrainSettings, steps: int) -> Callable[[int], float]:
    """The learning rate of a step of a run of `steps` steps, as a share of `lr`."""
    epoch_steps = steps / settings.epochs
    return rate_schedule(
        settings.schedule,
        steps=steps,
        warmup=round(settings.warmup_epochs * epoch_steps),
        milestones=[round(epoch * epoch_steps) for epoch in sorted(settings.step_epochs)],
        factor=settings.step_factor,
    )
