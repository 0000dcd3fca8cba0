"""The subclasses of a teacher: several logits that stand for one class of the data."""

from kdcache.errors import InvalidInputError
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.lineage import read_subclasses
from kdcache.views.data import Data


def chosen_subclasses(settings: ExtractSettings) -> int:
    """The number of logits that the teacher answers for each class: its weights file's, or the settings'. Raises
    InvalidInputError where these differ, and beside settings that count classes otherwise."""
    given, saved = settings.subclasses, read_subclasses(settings.weights) if settings.weights else 1
    if 1 < saved != given > 1:
        raise InvalidInputError(
            f"--subclasses is {given}, and the network of {settings.weights} was trained with {saved} logits a class; "
            f"leave --subclasses out, or give {saved}"
        )
    if (count := max(given, saved)) > 1 and (settings.class_map or settings.mask_classes):
        flag = "--class-map" if settings.class_map else "--mask-classes"
        raise InvalidInputError(
            f"{flag} is of whole classes, and the teacher has {count} subclasses of each; leave {flag} out, or ask a "
            "teacher without subclasses"
        )
    return count


def require_subclasses(count: int, subclasses: int, data: Data) -> None:
    """Raises InvalidInputError where a teacher's `count` logits are not `subclasses` for each class of the data."""
    classes, wanted = data.classes, data.classes * subclasses
    fits = count % subclasses == 0 and count >= max(wanted, 2 * subclasses)
    if subclasses > 1 and (not fits or (data.class_names and count != wanted)):
        of_data = f"the data's {classes} classes take {wanted}" if classes else "as many for each class"
        advice = f"build it so (--teacher-set num_classes={wanted})" if classes else f"give a divisor of {count}"
        raise InvalidInputError(
            f"the teacher answers {count} logits, and --subclasses {subclasses} of {of_data}; {advice}, or leave "
            "--subclasses out"
        )
