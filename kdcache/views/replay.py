"""When a view drawn again is not the view the teacher saw: how far off it is, why, and whether it may be accepted."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kdcache.base.view_span import ViewSpan
from kdcache.errors import ReplayError
from kdcache.store.manifest import Provenance
from kdcache.store.store import Store
from kdcache.views.decoding import ImageFiles, decoder_kind, decoder_name
from kdcache.views.draw import ViewDataset, ViewRequest, thumbnails
from kdcache.views.provenance import provenance, version_differences

EXCUSED_ROWS = 512  # rows after which the share that differs is held against the canary's
DRIFT_LEVELS = 6.0  # mean difference of a thumbnail, of 255, up to which a replay is the same picture a little off

Grade = Literal["equal", "drift", "another picture"]


@dataclass(frozen=True)
class ReplayGrade:
    """How the canary rows of a view look when they are drawn again: levels are of 255, over the worst row."""

    grade: Grade
    levels: float
    rows: int
    differing: int
    versions: tuple[str, ...]


@dataclass
class ExcusedDrift:
    """Drift that was accepted in one view: it may go on as the canary showed it, and not much beyond."""

    grade: ReplayGrade
    seen: int = 0
    differing: int = 0

    def count(self, seen: int, differing: int, view: int) -> None:
        """Count rows. Raises ReplayError where far more of them differ than of the canary's."""
        self.seen += seen
        self.differing += differing
        share = self.grade.differing / self.grade.rows
        if self.seen >= EXCUSED_ROWS and self.differing > (2.0 * share + 0.1) * self.seen:
            raise ReplayError(
                f"in view {view} {self.differing} of {self.seen} rows differ, of the canary {self.grade.differing} of "
                f"{self.grade.rows}: this is more than the drift that was accepted; samples have changed, restore them"
            )


def grade_replay(store: Store, dataset: ViewDataset, view: int) -> ReplayGrade:
    """Draw the canary rows (the first 64 positions) of a view again and compare thumbnails with the store's."""
    stored = store.segment_of(view).canary(view)
    positions = np.arange(len(stored), dtype=np.int64)
    drawn = dataset[ViewRequest(ViewSpan.of(view), positions)]
    differing = int((drawn.pixels[0] != store.load(view, positions).arrays["pixels"]).sum())
    off = np.abs(thumbnails(drawn.images[0]).astype(int) - stored.astype(int)).mean(axis=(1, 2, 3))
    worst = float(off.max())
    grade: Grade = "equal" if differing == 0 else "drift" if worst <= DRIFT_LEVELS else "another picture"
    return ReplayGrade(grade, worst, len(stored), differing, _versions(store, dataset, view))


def _versions(store: Store, dataset: ViewDataset, view: int) -> tuple[str, ...]:
    """What differs between here and the pass that wrote the view's canary, which lies in block 0 of its segment."""
    first = store.segment_of(view).commits().get(0)
    there = store.manifest.provenance if first is None else first.provenance
    return tuple(version_differences(there, provenance("cpu", decoder=_decoder(there, dataset.samples))))


def _decoder(there: Provenance, samples: object) -> str:
    """The decoder of this process; one that is a data set's own cannot be known here, and is taken as equal."""
    if isinstance(samples, ImageFiles):
        return decoder_name(samples.decoder)
    return decoder_name("pillow") if there.decoder.startswith("Pillow") else there.decoder


def require_decoder(there: Provenance, here: str, *, store: str, accept_drift: bool = False) -> None:
    """Raises ReplayError before anything is drawn, where files would be decoded by another library than the store's:
    crops of tensors are a few levels off those of PIL images. `here` is `Data.decoder`."""
    kinds = decoder_kind(there.decoder), decoder_kind(here)
    if all(kinds) and kinds[0] != kinds[1] and not accept_drift:
        raise ReplayError(
            f"{store} was extracted from images that {there.decoder} decoded; this data set is decoded by {here}, and "
            f"views would be a few levels off: use --data-set decoder={kinds[0]}; only train can go on, "
            "with --accept-drift"
        )


def require_replay(store: Store, dataset: ViewDataset, *, view: int, position: int, accept_drift: bool) -> ReplayGrade:
    """Judge a row whose fingerprint differs. Raises ReplayError unless drift is accepted and is all there is."""
    found = grade_replay(store, dataset, view)
    if accept_drift and found.grade == "drift":
        return found
    there = f"view {view} of position {position} (sample {int(dataset.order[position])})"
    seen = f"of {found.rows} canary rows {found.differing} differ, the worst by {found.levels:.1f} of 255 levels"
    versions = "; versions that differ: " + (", ".join(found.versions) or "none")
    if found.grade == "another picture":
        advice = (
            "these are other pictures, or another transform: use the data set and transform the store was made with"
        )
    elif found.grade == "equal":
        advice = "the canary replays exactly, so it is this sample that changed: restore its file"
    else:
        advice = (
            "same pictures, a few levels off at most: install the versions of the store, or accept with --accept-drift"
        )
    raise ReplayError(f"{there} is not the view the teacher saw: {found.grade}, {seen}{versions}; {advice}")
