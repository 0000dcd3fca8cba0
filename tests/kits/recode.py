"""Recoding in tests: done and verified."""

from pathlib import Path
from typing import Any

from kdcache.store.store import Store
from kdcache.whole_store.recode import RecodeSummary, recode_store
from kdcache.whole_store.recode_plan import Narrowing
from kdcache.whole_store.verify import inspect_files


def recoded(
    source: Path, out: Path, views: tuple[int, int] | None = None, **wanted: Any
) -> tuple[RecodeSummary, Store]:
    done = recode_store(str(source), str(out), Narrowing(**wanted), views=views)
    assert inspect_files(str(out)).whole
    return done, Store.open(out)
