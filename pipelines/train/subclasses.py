"""The subclasses of a student: those of the store that it learns from, or those that the settings name."""

from collections.abc import Sequence

from kdcache.errors import InvalidInputError
from kdcache.pipelines.settings import TrainSettings
from kdcache.store.lineage import read_subclasses
from kdcache.store.store import Store


def with_subclasses(settings: TrainSettings, stores: Sequence[Store]) -> TrainSettings:
    """Settings that name the subclasses of the weights file that the student starts from, where neither they nor a
    store tell. Raises InvalidInputError for weights with subclasses that are not the student's."""
    saved = read_subclasses(settings.weights) if settings.weights else 1
    if saved == 1:
        return settings
    if settings.subclasses is None and not stores:
        return settings.model_copy(update={"subclasses": saved})
    if saved != (wanted := student_subclasses(settings, stores)):
        advice = "" if stores else f", give --subclasses {saved},"
        raise InvalidInputError(
            f"the network of {settings.weights} was trained with {saved} subclasses a class, and the student has "
            f"{wanted}; leave --weights out{advice} or start from a network with as many"
        )
    return settings


def student_subclasses(settings: TrainSettings, stores: Sequence[Store]) -> int:
    """The number of logits that the student answers for each class of the hard labels, 1 without subclasses.

    A student of 1 learns from the classes of any stores. Raises InvalidInputError for stores of other numbers than the
    student's, and for several teachers with subclasses: nothing tells which subclasses of two teachers are the same.
    """
    counts = [store.identity.teacher.subclasses for store in stores]
    wanted = settings.subclasses or max(counts, default=1)
    if wanted == 1 or not stores:
        return wanted
    names = [f"{store.folder.root} has {count}" for store, count in zip(stores, counts, strict=True)]
    if wrong := [name for name, count in zip(names, counts, strict=True) if count != wanted]:
        raise InvalidInputError(
            f"the student has {wanted} subclasses a class, and {wrong[0]}; give --subclasses 1 to learn from classes, "
            "or stores of teachers with as many"
        )
    if len({store.identity.teacher.weights for store in stores}) > 1:
        raise InvalidInputError(
            f"the teachers of {len(stores)} stores number their {wanted} subclasses each in its own way: they cannot "
            "be averaged; give one --store, or --subclasses 1 to learn from classes"
        )
    _require_whole(settings, wanted)
    return wanted


def takes_classes(settings: TrainSettings, stores: Sequence[Store]) -> bool:
    """True where the student learns from the classes of teachers with subclasses."""
    return student_subclasses(settings, stores) == 1 and any(one.identity.teacher.subclasses > 1 for one in stores)


def _require_whole(settings: TrainSettings, subclasses: int) -> None:
    """Raises InvalidInputError for settings that soft labels of subclasses do not take."""
    if settings.top_k is not None:
        raise InvalidInputError(
            f"--top-k {settings.top_k} was asked of a store with {subclasses} subclasses a class, which need all "
            "logits; leave it out, or give --subclasses 1"
        )
    if settings.temperature == "calibrated":
        raise InvalidInputError(
            f"--temperature calibrated is fitted to classes, and the student learns {subclasses} subclasses of each; "
            "give a number, or --subclasses 1"
        )
