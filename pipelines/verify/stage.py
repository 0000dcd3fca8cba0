"""Verify checks a store's files, and on request its pixels against the data set and its logits against the teacher."""

import numpy as np

from kdcache.base.arrays import IntArray
from kdcache.base.progress import Progress, silent
from kdcache.base.records import Record
from kdcache.errors import InvalidInputError
from kdcache.pipelines.verify.settings import VerifySettings
from kdcache.places.folder import Folder
from kdcache.places.opening import open_place
from kdcache.store.seals import split_pin
from kdcache.store.store import Store
from kdcache.training.saved_networks import spelled_out
from kdcache.whole_store.engines import open_engine, seen_by
from kdcache.whole_store.verify import Check, Inspection, forget_blocks, inspect_files

NEED_DATA = ("data_set", "transform", "transform_set", "teacher", "teacher_set", "weights")
LISTED_FINDINGS = 20  # at most
LIVE = {  # live checks, and the next step where one fails
    "data set": "name the data set that the store was made from; kdcache inspect {store} shows it",
    "contents": "use the samples that the store was made from, or extract a store of these",
    "pixels": "use the data set's own files and the package versions that kdcache inspect {store} shows",
    "teacher weights": "name the store's own teacher and --weights; kdcache inspect {store} shows them",
    "teacher answers": "name the store's own network and arguments, with its versions; see kdcache inspect {store}",
}
STEPS = LIVE | {
    "teacher kind": "extract another store of this teacher with --teacher-answers probs",
    "teacher outputs": "name the store's own network and arguments, with its versions; see kdcache inspect {store}",
}


class Verdict(Record):
    """The verdict on a store, check by check. `repair`: the command that mends a failed check; `notes`: no failures."""

    store: str
    whole: bool
    checks: tuple[Check, ...]
    findings: tuple[str, ...]
    notes: tuple[str, ...]
    repair: str


def verify(settings: VerifySettings, *, progress: Progress = silent) -> Verdict:
    """A store is verified by its files, then by all else that the settings ask for: pixels against the data set,
    answers against the teacher. A file of wrong sha256 is never decoded.

    Args:
        settings: A field for each option of `kdcache verify`.
        progress: A callable that hears of the work that is done.

    Raises InvalidInputError for settings that do not go together, and StoreNotFoundError; faults of the store are not
    raised but stand in the verdict.

    Examples:
        >>> from kdcache.pipelines.verify.settings import VerifySettings
        >>> verify(VerifySettings(store="digits.kd")).whole
        True
    """
    settings = spelled_out(settings)
    _require_data(settings)
    settings = settings.model_copy(update={"store": seen_by(settings, settings.store)})
    with open_engine(settings) as engine:
        inspection = inspect_files(settings.store, engine=engine, progress=progress)
    count = len(inspection.findings)
    file_detail = f"{inspection.files} files, {inspection.bytes:,} bytes, {inspection.blocks} blocks, {count} wrong"
    block_detail = f"{inspection.missing} of {inspection.blocks} blocks not committed"
    checks = [
        Check(name="files", passed=not count, detail=file_detail),
        Check(name="complete", passed=not inspection.missing, detail=block_detail),
    ]
    findings = [finding.what for finding in inspection.findings[:LISTED_FINDINGS]]
    if settings.data and count:
        checks += _not_run(settings, f"{count} files are wrong")
    elif settings.data:
        live_checks, findings = _live_checks(settings, progress)
        checks += live_checks
    if count > LISTED_FINDINGS:
        findings.append(f"and {count - LISTED_FINDINGS} more")
    return Verdict(
        store=settings.store,
        whole=all(check.passed for check in checks),
        checks=tuple(checks),
        findings=tuple(findings),
        notes=inspection.notes,
        repair=_next_step(settings, inspection, checks),
    )


def _require_data(settings: VerifySettings) -> None:
    names = [name for name in NEED_DATA if getattr(settings, name)]
    if names and not settings.data:
        raise InvalidInputError(f"{', '.join(names)} were given without --data; name the data set to look at")
    if settings.repair and not isinstance(place := open_place(split_pin(settings.store)[0]), Folder):
        raise InvalidInputError(f"--repair was given for {place.root}, which is read only; repair the store's folder")
    if settings.weights and not settings.teacher:
        raise InvalidInputError("weights were given without --teacher; name the teacher too")


def _next_step(settings: VerifySettings, inspection: Inspection, checks: list[Check]) -> str:
    """The next step that mends the first fault, or "". Removes damaged blocks where the settings say repair."""
    path = split_pin(settings.store)[0]
    if any(finding.block is not None for finding in inspection.findings) and isinstance(open_place(path), Folder):
        if not settings.repair:
            return f"kdcache verify {path} --repair, then the same `kdcache extract` that made the store"
        block_count = len(forget_blocks(path, inspection.findings))
        return f"{block_count} blocks were removed; run the same `kdcache extract` that made the store to redo them"
    if inspection.findings:
        advice = [finding.advice for finding in inspection.findings]
        return advice[0] if all(advice) else "restore the named files from another copy of the store"
    names = [check.name for check in checks if not check.passed]
    if inspection.missing or (names and not inspection.blocks):
        return "the same `kdcache extract` that made the store finishes it"
    return STEPS[names[0]].format(store=path) if names else ""


def _not_run(settings: VerifySettings, reason: str, *done_names: str) -> list[Check]:
    """The live checks that the settings ask for, without those already done, as failed because they did not run."""
    names = [name for name in LIVE if name not in done_names and (settings.teacher or not name.startswith("teacher"))]
    return [Check(name=name, passed=False, detail=f"not run: {reason}") for name in names]


def _live_checks(settings: VerifySettings, progress: Progress) -> tuple[list[Check], list[str]]:
    """The checks that need torch: the data set's identity, replayed pixels, the teacher's answers; and what was found
    of a data set that is not the store's."""
    from kdcache.pipelines.verify.live_checks import (
        compare_contents,
        compare_data,
        compare_pixels,
        compare_teacher,
        open_replay,
    )
    from kdcache.views.class_numbers import is_unlabelled
    from kdcache.views.reading import as_extracted
    from kdcache.views.sources import open_data

    store = Store.open(settings.store)
    data = open_data(settings.data, settings.data_set, labels="none" if is_unlabelled(store) else "data")
    data = as_extracted(data, [store])
    check, lines = compare_data(store, data, settings, progress)
    if not check.passed:
        return [check, *_not_run(settings, "this is not the store's data set", "data set")], lines
    checks = [check]
    replay = open_replay(store, data, settings)
    positions = _sample(_committed_positions(store), settings.rows, data.sequence)
    if not len(positions):
        return checks + _not_run(settings, "no row is committed in every segment of the store", "data set"), []
    if store.identity.encoding.contents is not None:
        checks.append(compare_contents(replay, positions))
    checks.append(compare_pixels(replay, positions, settings, progress))
    if settings.teacher:
        checks += compare_teacher(replay, positions, settings, progress)
    return checks, []


def _committed_positions(store: Store) -> IntArray:
    """Positions that every segment holds, with an answer in every view; none where there is no segment."""
    positions = np.arange(store.rows if store.segments else 0)
    for segment in store.segments:
        positions = positions[np.isin(positions // segment.layout.block, list(segment.commits()))]
        for view in segment.views if len(segment.struck()) else ():
            positions = np.setdiff1d(positions, segment.struck(view))
    return positions


def _sample(positions: IntArray, count: int, sequence: int) -> IntArray:
    """`count` of the positions, or the whole texts that hold as many; all of them where it is 0; the same in every
    run."""
    if count == 0:
        return positions
    samples = positions.reshape(-1, sequence)
    chosen = np.sort(np.random.RandomState(0).permutation(len(samples))[: -(-count // sequence)])
    return samples[chosen].reshape(-1)
