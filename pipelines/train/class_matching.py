"""Labels and classes of a training: stores, data, weights and objective must speak of the same ones."""

from typing import cast

from kdcache.errors import InvalidInputError
from kdcache.networks.class_map import are_equal_in_number
from kdcache.objectives.joined import AnyObjective, Phases, objectives_in
from kdcache.objectives.objective import Objective
from kdcache.pipelines.settings import TrainSettings
from kdcache.store.lineage import read_class_names
from kdcache.store.store import Store
from kdcache.views.class_numbers import is_unlabelled
from kdcache.views.data import Data

WITHOUT_LABELS = "--labels none"


def require_same_labels(settings: TrainSettings, data: Data, stores: list[Store]) -> None:
    """Raises InvalidInputError where the labels of the data are used with a store that has none, or the reverse."""
    for store in stores:
        name, unlabelled = str(store.folder.root), is_unlabelled(store)
        if settings.labels == "none" and not unlabelled:
            raise InvalidInputError(
                f"{WITHOUT_LABELS} was given, and {name} has hard labels; leave {WITHOUT_LABELS} out (--set "
                f"w_ce=0 learns from soft labels alone), or extract it with {WITHOUT_LABELS}"
            )
        if unlabelled and (data.is_labelled or data.class_names):
            raise InvalidInputError(
                f"{name} was extracted without hard labels, and the data set has some; give {WITHOUT_LABELS}"
            )


def require_learnable(objective: AnyObjective, data: Data) -> None:
    """Raises InvalidInputError for an objective that learns, all along or from some epoch on, from hard labels alone
    where no row has one."""
    for start, part in () if data.is_labelled else _parts(objective):
        if _is_by_labels(part):
            when = f"from epoch {start} on " if start else ""
            raise InvalidInputError(
                f"no row of the data set has a label, and {when}the objective learns from labelled rows alone: there "
                "is nothing to learn; give labels, or a --store and an objective that needs none, such as kd"
            )


def _is_by_labels(part: AnyObjective) -> bool:
    """True for an objective that rows without a label teach nothing."""
    return all(_is_one_by_labels(one) for one in objectives_in(part))


def _is_one_by_labels(one: Objective) -> bool:
    return one.facts.by_labels or (one.w_kd == 0 and "w_kd" not in one.over_epochs)


def _parts(objective: AnyObjective) -> list[tuple[int, AnyObjective]]:
    """The objectives of a training, by the epoch from which each holds."""
    if not isinstance(objective, Phases):
        return [(0, objective)]
    return [(start, cast("AnyObjective", part)) for start, part in zip(objective.starts, objective.parts, strict=True)]


def class_notes(settings: TrainSettings, data: Data, stores: list[Store], objective: AnyObjective) -> tuple[str, ...]:
    """Notes on the classes of the training data, of its stores' teachers, and of the weights that it starts from, and
    on rows that teach nothing."""
    notes = list(data.notes)
    count = len(data.class_names)
    if (data.labels < 0).any() and data.is_labelled and any(_is_by_labels(part) for _, part in _parts(objective)):
        notes.append("rows without a label teach nothing under this objective")
    for store in stores:
        teacher = store.identity.teacher
        classes = teacher.label_classes
        if count and not are_equal_in_number(count, classes, teacher.masked_classes):
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
