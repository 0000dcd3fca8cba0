"""The parquet files of a place, of a split where they have some, and pyarrow, which opens them."""

import re
from pathlib import Path
from typing import Any

from kdcache.errors import InvalidInputError
from kdcache.views.columns import require_split
from kdcache.views.encoded_images import Opening
from kdcache.views.image_folder import SPLITS
from kdcache.views.label_numbers import listed


def files_of(at: Opening, split: str, noun: str) -> list[Path]:
    """The files of a place, of a split where they have some. Raises InvalidInputError."""
    if at.path.is_file():
        return [at.path]
    paths = sorted(
        path
        for path in at.path.rglob("*.parquet")
        if not any(part.startswith(".") for part in path.relative_to(at.path).parts)
    )
    if not paths:
        raise InvalidInputError(f"{noun} is neither a file nor a folder of .parquet files")
    by_split: dict[str, list[Path]] = {}
    for path in paths:
        by_split.setdefault(_split_of(path.relative_to(at.path)), []).append(path)
    unnamed = [str(path.relative_to(at.path)) for path in by_split.get("", ())]
    if unnamed and len(by_split) > 1:
        raise InvalidInputError(
            f"{noun}: the names of {len(unnamed):,} of {len(paths):,} files tell no split ({listed(unnamed)}), beside "
            f"those of {', '.join(sorted(filter(None, by_split)))}; begin each with its split, such as train-, or move "
            "them to another folder"
        )
    if unnamed:
        by_split = {at.path.name: paths} if at.path.name.lower() in SPLITS else {}
    if split or len(by_split) > 1:
        return by_split[require_split(split, sorted(by_split), noun)]
    return paths


def _split_of(path: Path) -> str:
    """The split that the path of a file in its folder tells, by a word of its name or by a folder; "" for none."""
    words = [*re.split(r"[-._ 0-9]+", path.stem), *reversed(path.parts[:-1])]
    return next((word for word in words if word.lower() in SPLITS), "")


def opened(path: Path) -> Any:
    """A file of pyarrow, open. Raises InvalidInputError, which names it."""
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise InvalidInputError(
            f"data parquet: is read by pyarrow, which cannot be imported ({error}); pip install 'kdcache[parquet]'"
        ) from error
    try:
        open_file: Any = parquet.ParquetFile
        return open_file(path, memory_map=True)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path} is no parquet file that can be read ({error})") from error
