"""A teacher's classes are matched with the data's: as the store that stands has them, by a file, or by name."""

from itertools import zip_longest

from kdcache.errors import InvalidInputError, MismatchError
from kdcache.networks.class_map import ClassMap, are_equal_in_number, class_map_by_name, read_class_map
from kdcache.networks.class_names import vocabularies
from kdcache.networks.teacher import Teacher
from kdcache.pipelines.extract.subclasses import chosen_subclasses
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.lineage import read_class_names
from kdcache.store.manifest import TeacherIdentity
from kdcache.views.data import Data

SHOWN = 5  # classes that a message lists


def classes_to_build(settings: ExtractSettings, data: Data, stored: TeacherIdentity | None) -> int:
    """The number of classes that the teacher is built with, where its factory asks for one: those of the class map that
    stands, of the weights file where it names them, or of the data; each as often as it has subclasses."""
    names = read_class_names(settings.weights) if settings.weights else ()
    return ((len(stored.class_map) if stored else 0) or len(names) or data.classes) * chosen_subclasses(settings)


def matched_classes(
    settings: ExtractSettings, data: Data, teacher: Teacher, *, classes: int, stored: TeacherIdentity | None
) -> ClassMap:
    """The class map of a network that answers `classes` classes. A store that stands keeps its own, unless the settings
    name a file: then both are compared as the rest of its identity is. Raises InvalidInputError."""
    if stored is not None and not settings.class_map:
        return _of_store(stored, data)
    known = vocabularies(
        teacher.network,
        spec=settings.teacher,
        arguments=settings.teacher_set,
        weights=settings.weights,
        classes=classes,
    )
    if not settings.class_map:
        class_map = class_map_by_name(data.class_names, known, classes=classes, masked=settings.mask_classes)
        if class_map.map and (subclasses := teacher.answers.subclasses) > 1:
            raise InvalidInputError(
                f"the teacher's classes are matched with the data's by name, which a teacher of {subclasses} "
                "subclasses a class does not take; number the data's classes as the teacher does"
            )
        return class_map
    class_map = read_class_map(settings.class_map, data.class_names, known, classes=classes, labels=data.classes)
    if stored is not None:
        _require_same(stored, class_map, settings)
    return class_map


def _require_same(stored: TeacherIdentity, class_map: ClassMap, settings: ExtractSettings) -> None:
    """Raises MismatchError, naming the teacher's classes that the store maps otherwise."""
    if stored.class_map != class_map.map:
        pairs = zip_longest(stored.class_map, class_map.map, fillvalue="no map")
        differences = [
            (f"teacher.class_map of the teacher's class {number}", str(left), str(right))
            for number, (left, right) in enumerate(pairs)
            if left != right
        ]
        raise MismatchError(
            f"{settings.store} belongs to another extraction, {len(differences)} classes of its teacher are mapped "
            "otherwise:",
            differences[:SHOWN],
            "leave --class-map to the store, or use another store path",
            ("the store", settings.class_map),
        )


def _of_store(stored: TeacherIdentity, data: Data) -> ClassMap:
    count = len(data.class_names)
    notes: tuple[str, ...] = ()
    if count and not are_equal_in_number(count, stored.label_classes, stored.masked_classes):
        notes = (
            f"the store has the teacher's {stored.label_classes:,} classes, the data names {count:,}: hard labels and "
            "soft labels may mean other classes; a new store matches them by name or by --class-map",
        )
    return ClassMap(stored.class_map, stored.classes, notes)
