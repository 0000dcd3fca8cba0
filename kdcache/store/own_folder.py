"""A new store has a folder of its own."""

from pathlib import Path

from kdcache.errors import InvalidInputError
from kdcache.store.layout import MANIFEST
from kdcache.store.seals import split_pin


def require_writable(out: str) -> None:
    """Raises InvalidInputError for the output of a command that is a pin, or a folder of other files."""
    if split_pin(out)[1] is not None:
        raise InvalidInputError(f"the output {out} is a pin, which can only be read; name a folder")
    require_no_other_files(out)


def require_no_other_files(out: str) -> None:
    """Raises InvalidInputError for a folder that holds files and is no store."""
    folder = Path(out)
    names = sorted({path.name for path in folder.iterdir()} - {"kdcache"}) if folder.is_dir() else []
    if names and not (folder / MANIFEST).exists():  # another process may have made the store just now
        raise InvalidInputError(f"{out} holds other files ({names[0]}); choose another place for the store")
