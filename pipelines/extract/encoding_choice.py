"""The encoding that extract's settings ask for, and the labels that must fit it."""

import numpy as np

from kdcache.errors import InvalidInputError
from kdcache.labels.encoding import Choice, Contents, Encoding, LabelSpace
from kdcache.labels.encodings import chosen
from kdcache.pipelines.extract.views import stored_identity
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.manifest import DatasetIdentity
from kdcache.views.data import Data


def chosen_encoding(settings: ExtractSettings, space: LabelSpace, contents: Contents | None) -> Encoding:
    """The encoding that the settings ask for, without what `--keep` adds."""
    if wrong_classes := [number for number in settings.mask_classes if not 0 <= number < space.classes]:
        raise InvalidInputError(f"masked classes {wrong_classes} are not among the teacher's {space.classes} classes")
    name = settings.encoding
    if name == "auto":
        is_free = space.subclasses > 1 and "top_k" not in settings.model_fields_set
        name = "full" if settings.top_k >= space.visible or is_free else "topk"
    stored = stored_encoding(settings)
    encoding = chosen(name, chosen_words(settings), space, like=stored)
    contents = contents if stored is None else stored.contents
    return encoding.model_copy(update={"contents": contents})


def chosen_words(settings: ExtractSettings) -> Choice:
    """The words of the settings that choose an encoding."""
    packing = None if settings.packing == "auto" else settings.packing
    return Choice(
        settings.top_k,
        settings.quantisation,
        packing,
        shuffled=settings.order == "shuffled",
        draws=settings.draws,
        draw_temperature=settings.draw_temperature,
    )


def stored_encoding(settings: ExtractSettings) -> Encoding | None:
    """The encoding of the store that stands already, None where there is none."""
    identity = stored_identity(settings)
    return None if identity is None else identity.encoding


def with_fitting_labels(identity: DatasetIdentity, data: Data, classes: int) -> DatasetIdentity:
    """The data set's identity. Raises InvalidInputError for labels that are none of the teacher's classes."""
    if len(indices := np.flatnonzero(data.labels >= classes)):
        examples = ", ".join(
            f"sample {index} ({data.ids[index // data.sequence]}) has {data.labels[index]}"
            for index in indices[:3].tolist()
        )
        raise InvalidInputError(
            f"{len(indices)} labels do not fit the teacher's {classes} classes, 0 to {classes - 1}: {examples}; "
            "use a teacher of these classes, mend the labels, or say by --class-map FILE which classes these are"
        )
    return identity
