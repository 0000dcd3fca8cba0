"""A training on texts: what is for pictures alone is refused by name."""

from collections.abc import Sequence

from kdcache.errors import InvalidInputError
from kdcache.objectives.catalogue import LOGIT_TERMS
from kdcache.objectives.joined import AnyObjective, objectives_in
from kdcache.pipelines.settings import AUTO, TrainSettings
from kdcache.store.store import Store
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


def require_same_tokenizer(data: Data, training: Data) -> None:
    """Raises InvalidInputError for a split whose tokens, or the want of them, are not those of the training."""
    if data.sequence > 1 < training.sequence:
        names = [split.vocabulary.tokenizer for split in (training, data)]
        if all(names) and names[0] != names[1]:
            raise InvalidInputError(
                f"{data.name} was made into tokens by tokenizer {names[1][:12]}, {training.name} by {names[0][:12]}: "
                "ids mean other words; name the same tokenizer"
            )
    elif max(data.sequence, training.sequence) > 1:
        kinds = ["texts" if split.sequence > 1 else "pictures" for split in (training, data)]
        raise InvalidInputError(
            f"the training holds {kinds[0]}, {data.name} holds {kinds[1]}; name a split of its kind"
        )


def require_no_parts_of_texts(stores: Sequence[Store]) -> None:
    """Raises InvalidInputError for stores of parts that hold texts."""
    if texts := [str(store.folder.root) for store in stores if store.identity.dataset.sequence > 1]:
        raise InvalidInputError(
            f"{', '.join(texts)}: stores of parts of a data set are joined for pictures alone; name the data that a "
            "store was extracted from (--data-set range=...), or extract one store of all texts"
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
