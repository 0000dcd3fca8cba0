"""A store or a run has a place of its own: neither inside of a store, nor among the pictures that it is made from."""

from pathlib import Path
from typing import Any

from kdcache.errors import InvalidInputError
from kdcache.store.layout import enclosing_store
from kdcache.views.source_forms import growing_folder


def require_own_place(place: str, data: str, arguments: dict[str, Any]) -> None:
    """Raises InvalidInputError for a place in a store, or in the folder of pictures that `data` and `arguments` name:
    it would be read as a class, and the data set would be another one from then on."""
    path = Path(place)
    if "://" in place:
        return
    if (outer := enclosing_store(path)) is not None:
        raise InvalidInputError(f"{place} would lie in {outer}, a store itself; choose a place beside it")
    pictures = growing_folder(data, arguments)
    if pictures is not None and path.resolve().is_relative_to(pictures.resolve()):
        raise InvalidInputError(
            f"{place} would lie in {pictures}, the folder of the data set, which would count it among its pictures; "
            "choose a place outside of it"
        )
