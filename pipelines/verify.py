"""Verify a store: its files, on request its pixels against the data set, and its logits against the teacher."""

from typing import Any

import numpy as np

from kdcache.errors import InvalidInputError
from kdcache.manifest import Record
from kdcache.pipelines.settings import VerifySettings
from kdcache.progress import Progress, silent
from kdcache.verify import Check, forget_blocks, inspect_files

NEED_DATA = ("data_set", "transform", "transform_set", "teacher", "teacher_set", "weights")
SHOWN = 20  # findings that are listed


class Verdict(Record):
    """All checks; `repair` is the command that mends what failed."""

    store: str
    whole: bool
    checks: tuple[Check, ...]
    findings: tuple[str, ...]
    repair: str


def verify(settings: VerifySettings, *, progress: Progress = silent) -> Verdict:
    """Check a store's files, then what the settings ask for. Nothing is decoded whose sha256 is wrong."""
    given = [name for name in NEED_DATA if getattr(settings, name)]
    if given and not settings.data:
        raise InvalidInputError(f"{', '.join(given)} were given without --data; name the data set to look at")
    found = inspect_files(settings.store, progress=progress)
    count = len(found.findings)
    detail = f"{found.files} files, {found.bytes:,} bytes, {found.blocks} blocks"
    checks = [
        Check(name="files", passed=not count, detail=f"{detail}, {count} wrong"),
        Check(
            name="complete", passed=not found.missing, detail=f"{found.missing} of {found.blocks} blocks not committed"
        ),
    ]
    if settings.data and not count:
        checks += _live_checks(settings, progress)
    blocks = [finding for finding in found.findings if finding.block is not None]
    repair = ""
    if settings.repair and blocks:
        forgotten = forget_blocks(settings.store, found.findings)
        repair = (
            f"{len(forgotten)} blocks were removed; run the same `kdcache extract` that made the store to redo them"
        )
    elif blocks:
        repair = f"kdcache verify {settings.store} --repair, then the same `kdcache extract` that made the store"
    elif found.missing:
        repair = "the same `kdcache extract` that made the store finishes it"
    elif count:
        repair = "restore the named files from another copy of the store"
    shown = [finding.what for finding in found.findings[:SHOWN]]
    if count > SHOWN:
        shown.append(f"and {count - SHOWN} more")
    whole = all(check.passed for check in checks)
    return Verdict(store=settings.store, whole=whole, checks=tuple(checks), findings=tuple(shown), repair=repair)


def _live_checks(settings: VerifySettings, progress: Progress) -> list[Check]:
    """The checks that need torch: the data set's identity, replayed pixels, the teacher's answers."""
    from kdcache.datasets import open_data
    from kdcache.manifest import differences
    from kdcache.pipelines.replays import compare_pixels, compare_teacher, open_replay
    from kdcache.store import Store

    store = Store.open(settings.store)
    data = open_data(settings.data, settings.data_set)
    wrong = differences(store.identity.dataset, data.identity(), "dataset.")
    text = "; ".join(f"{field}: the store has {stored}, the data set {given}" for field, stored, given in wrong)
    checks = [Check(name="data set", passed=not wrong, detail=text or f"{len(data)} samples, ids and labels equal")]
    if wrong:
        return checks
    replay = open_replay(store, data, settings)
    rows = np.arange(len(data)) if settings.rows == 0 else np.sort(_sample(len(data), settings.rows))
    checks.append(compare_pixels(replay, rows, settings.workers, progress))
    if settings.teacher:
        checks += compare_teacher(replay, rows, settings, progress)
    elif settings.weights:
        raise InvalidInputError("weights were given without --teacher; name the teacher too")
    return checks


def _sample(rows: int, count: int) -> Any:
    return np.random.RandomState(0).permutation(rows)[:count]
