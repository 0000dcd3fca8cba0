"""Counts of what a folder is asked for: listings of commits, and commit files that are read."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kdcache.places.folder import Folder


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """While open, count `listings` of commits in any folder, and commit files that are `read`; all are answered."""
    counts, keys, get = Counter[str](), Folder.keys, Folder.get

    def counted_keys(folder: Folder, prefix: str) -> Iterator[str]:
        counts["listings"] += prefix.endswith("/commits")
        return keys(folder, prefix)

    def counted_get(folder: Folder, key: str, **how: Any) -> bytes | None:
        counts["read"] += "/commits/" in key
        return get(folder, key, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folder, "keys", counted_keys)
        patch.setattr(Folder, "get", counted_get)
        yield counts
