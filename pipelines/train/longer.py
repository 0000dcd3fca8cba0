"""A run is made longer: its epochs so far must be those that a run of the new length would have had."""

from kdcache.objectives.joined import AnyObjective
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.rates import rate_multiplier
from kdcache.training.batch_stream import BatchStream


def why_not_longer(settings: TrainSettings, objective: AnyObjective, loader: BatchStream, epochs: int) -> str:
    """The reason why a run of `epochs` epochs cannot go on to `settings.epochs`; empty where it can.

    Then it ends with the bytes of a run that had them all from the start: batches, rates and losses of its first epochs
    do not depend on the number of all epochs.
    """
    if loader.has_unequal_needs:
        return "its soft labels do not fit in memory, and the steps of an epoch are those of the longest one"
    if objective.counts_by_total:
        return "its objective counts by the share of the training that is done"
    steps = loader.steps(0)
    rates = rate_multiplier(settings.model_copy(update={"epochs": epochs}), epochs * steps)
    new_rates = rate_multiplier(settings, settings.epochs * steps)
    if any(rates(step) != new_rates(step) for step in range(epochs * steps + 1)):
        return f"its learning rates are those of {epochs} epochs under --schedule {settings.schedule}"
    return ""
