"""Verify a store: its files, on request its pixels against the data set, and its logits against the teacher."""

import numpy as np

from kdcache.base.arrays import IntArray
from kdcache.base.progress import Progress, silent
from kdcache.base.records import Record
from kdcache.errors import InvalidInputError
from kdcache.pipelines.settings import VerifySettings
from kdcache.places.folder import Folder
from kdcache.places.opening import open_place
from kdcache.store.seals import split_pin
from kdcache.store.store import Store
from kdcache.whole_store.engines import open_engine, seen_by
from kdcache.whole_store.verify import Check, Inspection, forget_blocks, inspect_files

NEED_DATA = ("data_set", "transform", "transform_set", "teacher", "teacher_set", "weights")
SHOWN = 20  # findings that are listed
LIVE = {  # the checks against the living, and the next step where one fails
    "data set": "name the data set that the store was made from; kdcache inspect {store} shows it",
    "pixels": "use the data set's own files and the package versions that kdcache inspect {store} shows",
    "teacher weights": "name the store's own teacher and --weights; kdcache inspect {store} shows them",
    "teacher answers": "name the store's own network and arguments, with its versions; see kdcache inspect {store}",
}


class Verdict(Record):
    """All checks; `repair` is the command that mends what failed, `notes` are worth knowing and no failure."""

    store: str
    whole: bool
    checks: tuple[Check, ...]
    findings: tuple[str, ...]
    notes: tuple[str, ...]
    repair: str


def verify(settings: VerifySettings, *, progress: Progress = silent) -> Verdict:
    """Check a store's files, then what the settings ask for. Nothing is decoded whose sha256 is wrong."""
    _require_data(settings)
    settings = settings.model_copy(update={"store": seen_by(settings, settings.store)})
    with open_engine(settings) as engine:
        found = inspect_files(settings.store, engine=engine, progress=progress)
    count = len(found.findings)
    seen = f"{found.files} files, {found.bytes:,} bytes, {found.blocks} blocks, {count} wrong"
    committed = f"{found.missing} of {found.blocks} blocks not committed"
    checks = [
        Check(name="files", passed=not count, detail=seen),
        Check(name="complete", passed=not found.missing, detail=committed),
    ]
    if settings.data:
        checks += _not_run(settings, f"{count} files are wrong") if count else _live_checks(settings, progress)
    shown = [finding.what for finding in found.findings[:SHOWN]]
    if count > SHOWN:
        shown.append(f"and {count - SHOWN} more")
    return Verdict(
        store=settings.store,
        whole=all(check.passed for check in checks),
        checks=tuple(checks),
        findings=tuple(shown),
        notes=found.notes,
        repair=_next_step(settings, found, checks),
    )


def _require_data(settings: VerifySettings) -> None:
    given = [name for name in NEED_DATA if getattr(settings, name)]
    if given and not settings.data:
        raise InvalidInputError(f"{', '.join(given)} were given without --data; name the data set to look at")
    if settings.repair and not isinstance(place := open_place(split_pin(settings.store)[0]), Folder):
        raise InvalidInputError(f"--repair was given for {place.root}, which is read only; repair the store's folder")
    if settings.weights and not settings.teacher:
        raise InvalidInputError("weights were given without --teacher; name the teacher too")


def _next_step(settings: VerifySettings, found: Inspection, checks: list[Check]) -> str:
    """What mends the first of what is wrong; removes damaged blocks where that was asked for."""
    path = split_pin(settings.store)[0]
    if any(finding.block is not None for finding in found.findings) and isinstance(open_place(path), Folder):
        if not settings.repair:
            return f"kdcache verify {path} --repair, then the same `kdcache extract` that made the store"
        forgotten = len(forget_blocks(path, found.findings))
        return f"{forgotten} blocks were removed; run the same `kdcache extract` that made the store to redo them"
    if found.findings:
        advice = [finding.advice for finding in found.findings]
        return advice[0] if all(advice) else "restore the named files from another copy of the store"
    failed = [check.name for check in checks if not check.passed]
    if found.missing or (failed and not found.blocks):
        return "the same `kdcache extract` that made the store finishes it"
    return LIVE[failed[0]].format(store=path) if failed else ""


def _not_run(settings: VerifySettings, why: str, *done: str) -> list[Check]:
    """Every check of the living that was asked for, but for those already done, as failed because it did not run."""
    names = [name for name in LIVE if name not in done and (settings.teacher or not name.startswith("teacher"))]
    return [Check(name=name, passed=False, detail=f"not run: {why}") for name in names]


def _live_checks(settings: VerifySettings, progress: Progress) -> list[Check]:
    """The checks that need torch: the data set's identity, replayed pixels, the teacher's answers."""
    from kdcache.base.records import differences
    from kdcache.pipelines.verify.live_checks import compare_pixels, compare_teacher, open_replay
    from kdcache.views.sources import open_data

    store = Store.open(settings.store)
    data = open_data(settings.data, settings.data_set)
    wrong = differences(store.identity.dataset, data.identity(), "dataset.")
    text = "; ".join(f"{field}: the store has {stored}, the data set {given}" for field, stored, given in wrong)
    checks = [Check(name="data set", passed=not wrong, detail=text or f"{len(data)} samples, ids and labels equal")]
    if wrong:
        return checks + _not_run(settings, "this is not the store's data set", "data set")
    replay = open_replay(store, data, settings)
    rows = _sample(_committed(store), settings.rows)
    if not len(rows):
        return checks + _not_run(settings, "no row is committed in every segment of the store", "data set")
    checks.append(compare_pixels(replay, rows, settings.workers, progress))
    if settings.teacher:
        checks += compare_teacher(replay, rows, settings, progress)
    return checks


def _committed(store: Store) -> IntArray:
    """Positions that every segment holds; none where there is no segment."""
    rows = np.arange(store.rows if store.segments else 0)
    for segment in store.segments:
        rows = rows[np.isin(rows // segment.layout.block, list(segment.commits()))]
    return rows


def _sample(rows: IntArray, count: int) -> IntArray:
    """`count` of the rows, all of them where it is 0; the same in every run."""
    if count == 0:
        return rows
    return rows[np.sort(np.random.RandomState(0).permutation(len(rows))[:count])]
