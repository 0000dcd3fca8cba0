"""Labels and classes of a training: stores, data, weights and objective must speak of the same ones."""

from kdcache.errors import InvalidInputError
from kdcache.networks.class_map import are_equal_in_number
from kdcache.objectives.objective import Objective, Phases
from kdcache.pipelines.settings import TrainSettings
from kdcache.store.lineage import read_class_names
from kdcache.store.store import Store
from kdcache.views.class_numbers import is_unlabelled
from kdcache.views.sources import Data

WITHOUT_LABELS = "--labels none"


def require_same_labels(settings: TrainSettings, data: Data, stores: list[Store]) -> None:
    """Raises InvalidInputError where the labels of the data are used with a store that has none, or the reverse."""
    for store in stores:
        name, unlabelled = str(store.folder.root), is_unlabelled(store)
        if settings.labels == "none" and not unlabelled:
            raise InvalidInputError(
                f"{WITHOUT_LABELS} was given, and {name} has hard labels, which prove that its rows are these; leave "
                f"{WITHOUT_LABELS} out, and give --set w_ce=0 to learn from soft labels alone"
            )
        if unlabelled and (data.is_labelled or data.class_names):
            raise InvalidInputError(
                f"{name} was extracted without hard labels, and the data set has some; give {WITHOUT_LABELS}"
            )


def require_learnable(objective: Objective | Phases, data: Data) -> None:
    """Raises InvalidInputError for an objective that learns, all along or from some epoch on, from hard labels alone
    where no row has one."""
    if data.is_labelled:
        return
    parts = list(objective.parts) if isinstance(objective, Phases) else [objective]
    starts = objective.starts if isinstance(objective, Phases) else [0]
    for start, part in zip(starts, parts, strict=True):
        assert isinstance(part, Objective)
        if not part.term.facts.teacher or (part.w_kd == 0 and "w_kd" not in part.over_epochs):
            when = f"from epoch {start} on " if start else ""
            raise InvalidInputError(
                f"no row of the data set has a label, and {when}the objective learns from hard labels alone: there is "
                "nothing to learn; give labels, or a --store and an objective that uses its soft labels"
            )


def class_notes(settings: TrainSettings, data: Data, stores: list[Store]) -> tuple[str, ...]:
    """Notes on the classes of the training data, of its stores' teachers, and of the weights that it starts from."""
    notes = list(data.notes)
    count = len(data.class_names)
    for store in stores:
        classes = store.identity.teacher.classes
        if count and not are_equal_in_number(count, classes, store.identity.teacher.masked_classes):
            notes.append(
                f"{store.folder.root} has {classes:,} classes, the data names {count:,}: hard labels and soft labels "
                "may mean other classes; learn from one of them (w_ce or w_kd 0), or extract the store anew"
            )
    names = read_class_names(settings.weights) if settings.weights else ()
    if names and count and names != data.class_names and set(names) & set(data.class_names):
        changed = [
            f"{number} was {name} and is {data.class_names[number] if number < count else 'none'}"
            for number, name in enumerate(names)
            if number >= count or name != data.class_names[number]
        ]
        notes.append(f"the weights {settings.weights} number classes otherwise: {'; '.join(changed[:3])}")
    return tuple(notes)
