"""A selection of terms by reward: the policy that the settings describe."""

from kdcache.errors import InvalidInputError
from kdcache.objectives.catalogue import DEFAULT, names_in
from kdcache.objectives.joined import AnyObjective, Joint, objectives_in
from kdcache.objectives.selection import Selection
from kdcache.pipelines.settings import TrainSettings
from kdcache.views.data import Data


def add_selection(settings: TrainSettings, data: Data, objective: AnyObjective) -> None:
    """Give the objective the policy that the settings describe, if any. Raises InvalidInputError for an objective or
    data that it does not go with."""
    if not settings.select_set:
        return
    if settings.then or settings.kd_epochs is not None:
        flag = "--then" if settings.then else "--kd-epochs"
        raise InvalidInputError(
            f"--select-set selects among the terms of one objective, and {flag} changes it; leave one of them out"
        )
    name = settings.objective or DEFAULT
    if not isinstance(objective, Joint):
        raise InvalidInputError(
            f"--select-set selects among several terms, and --objective is {name}; join some, such as kd+hint"
        )
    first = next(objectives_in(objective))
    if not first.w_ce and "w_ce" not in first.over_epochs:
        raise InvalidInputError(
            f"--select-set may switch all terms off, and w_ce of objective {name} is 0: nothing would be learned then; "
            "raise w_ce"
        )
    if not data.is_labelled:
        raise InvalidInputError(
            "--select-set goes by the loss on hard labels, and no row of the data set has one; give labels, or leave "
            "it out"
        )
    names = names_in(name)
    labels = [part.rpartition(":")[2] for part in names]
    objective.selection = Selection(
        labels if len(set(labels)) == len(labels) else names,
        steps=settings.select_steps,
        rate=settings.select_rate,
        seed=settings.seed,
    )
