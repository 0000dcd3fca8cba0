"""A training on texts: what is for pictures alone is refused by name."""

from kdcache.errors import InvalidInputError
from kdcache.objectives.catalogue import LOGIT_TERMS
from kdcache.objectives.joined import AnyObjective, objectives_in
from kdcache.pipelines.settings import AUTO, TrainSettings
from kdcache.views.data import Data


def require_of_texts(settings: TrainSettings, data: Data) -> None:
    """Raises InvalidInputError for settings that say something of pictures alone, or of one label a sample, where the
    data are texts."""
    if data.sequence == 1:
        return
    pictures = {
        "--transform": settings.transform != "none" or bool(settings.transform_set),
        "--val-transform": settings.val_transform not in (AUTO, "none") or bool(settings.val_transform_set),
        "--mix": settings.mix != "none",
        "--mean and --std": bool(settings.mean or settings.std),
        "--view-cache": bool(settings.view_cache),
        "--decoded-cache": bool(settings.decoded_cache),
        "--accept-drift": settings.accept_drift,
        "--curriculum": bool(settings.curriculum),
        "--trust": bool(settings.trust),
        "--subclasses": settings.subclasses not in (None, 1),
    }
    for name in filter(None, settings.objective.split("+")):
        if name not in LOGIT_TERMS and ":" not in name:
            raise _of_layers(name)
    if wrong := [name for name, given in pictures.items() if given]:
        is_one = len(wrong) == 1
        raise InvalidInputError(
            f"{', '.join(wrong)} {'is' if is_one else 'are'} for pictures, and {data.name} holds texts of "
            f"{data.sequence} tokens; leave {'it' if is_one else 'them'} out"
        )


def require_logits_alone(objective: AnyObjective, data: Data) -> None:
    """Raises InvalidInputError, on texts, for an objective that sees more of a network than its logits."""
    if data.sequence == 1:
        return
    for part in objectives_in(objective):
        if part.student_taps or part.teacher_taps or part.negatives:
            raise _of_layers(type(part.term).__name__)


def _of_layers(name: str) -> InvalidInputError:
    return InvalidInputError(
        f"objective {name} sees layers of the networks, which stores of texts do not keep; use an objective of logits "
        "(kdcache objectives lists what each sees)"
    )
