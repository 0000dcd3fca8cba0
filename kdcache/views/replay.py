"""Drawn rows are compared with those of the stores: their samples by content fingerprint, their views by pixels.

A replay that differs is graded: how far is a view that is drawn again off the view the teacher saw, and what may be
accepted. Contents that are taken over a sample's bytes say which sample it is, so a difference there is another
picture, which nothing accepts. Those over decoded values move with the library that decodes, as pixels do, and are
judged with them; where the canary's samples decode as they did, what moves later is the transform, and a difference in
decoded values is another picture too. Partners that are drawn only to be mixed in are compared as well.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from kdcache.base.arrays import Array, IntArray
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError, ReplayError
from kdcache.store.manifest import Provenance
from kdcache.store.plan import GROUP
from kdcache.store.store import Store
from kdcache.views.decoding import decoder_kind, decoder_name
from kdcache.views.draw import DrawnRows, ViewDataset, thumbnails
from kdcache.views.provenance import provenance, version_differences
from kdcache.views.source_samples import decoder_of
from kdcache.views.view_stack import ViewRequest

READ_AT_ONCE = 2**22  # positions of which fingerprints are read together
EXCUSED_ROWS = 512  # rows from which on the share that differs is compared with the canary's
DRIFT_LEVELS = 6.0  # of 255, mean difference of a thumbnail up to which it shows the same picture, a little off

Grade = Literal["equal", "drift", "another picture"]


@dataclass(frozen=True)
class ReplayGrade:
    """The comparison of a view's canary rows, drawn again, with the store's.

    `levels` (of 255) is the mean difference of the worst row's thumbnail; `differing` of the `rows` have another
    fingerprint; `versions` are texts of those that differ. `moved` is the number of their samples with other contents.
    """

    grade: Grade
    levels: float
    rows: int
    differing: int
    versions: tuple[str, ...]
    moved: int = 0


@dataclass
class ExcusedDrift:
    """Drift that was accepted in one view. Its rows may differ as often as the canary's, and not much more often."""

    grade: ReplayGrade
    seen: int = 0
    differing: int = 0

    def count(self, rows: int, differing_rows: int, view: int) -> None:
        """Count rows. Raises ReplayError where far more of them differ than of the canary's."""
        self.seen += rows
        self.differing += differing_rows
        share = self.grade.differing / self.grade.rows
        if self.seen >= EXCUSED_ROWS and self.differing > (2.0 * share + 0.1) * self.seen:
            raise ReplayError(
                f"in view {view} {self.differing} of {self.seen} rows differ, of the canary {self.grade.differing} of "
                f"{self.grade.rows}: this is more than the drift that was accepted; samples have changed, restore them"
            )


class ReplayCheck:
    """Compares drawn rows with those of stores. Drift is judged once a store and view: drift that is excused in one
    view says nothing of the others. `drift` is the worst grade that was accepted, None without any.

    `positions`: those that rows and partners can have, from which the stores' fingerprints are read. Raises
    InvalidInputError where drift is accepted for a store of sequences.
    """

    def __init__(
        self, stores: Sequence[Store], dataset: ViewDataset, positions: IntArray | range, *, accept_drift: bool
    ) -> None:
        texts = [str(store.folder.root) for store in stores if store.identity.dataset.sequence > 1]
        if accept_drift and texts:
            raise InvalidInputError(
                f"drift was accepted for {texts[0]}, which holds texts: a token is equal or another"
            )
        self.drift: ReplayGrade | None = None
        self._stores, self._dataset, self._accept_drift = tuple(stores), dataset, accept_drift
        self._positions = positions
        self._excused: dict[tuple[int, int], ExcusedDrift] = {}  # by (number of the store, view)
        self._stored: dict[tuple[int, str], tuple[int, Array]] = {}  # (store, array) -> first view read, values [N]

    def compare_all(self, view: int, stored_pixels: Sequence[npt.NDArray[np.uint8]], drawn: DrawnRows) -> None:
        """Compare rows of a view with those of all stores, see `compare`."""
        for number, pixels in enumerate(stored_pixels):
            self.compare(number, view, drawn, pixels)

    def compare(self, number: int, view: int, drawn: DrawnRows, stored_pixels: npt.NDArray[np.uint8]) -> None:
        """Compare rows of a view with those of store `number`; `stored_pixels` [B] are of the first B of them, the
        others are partners alone.

        Raises ReplayError for another sample, as `require_replay` does, and where more rows differ than the accepted
        drift explains.
        """
        changed = self._changed_samples(number, view, drawn)
        partners = drawn.positions[len(stored_pixels) :]
        if len(partners):
            stored_pixels = np.concatenate([stored_pixels, self._stored_at(number, view, "pixels", partners)])
        differing_rows = np.flatnonzero((drawn.pixels != stored_pixels) | changed)
        key = (number, view)
        if len(differing_rows) and key not in self._excused:
            position = int(drawn.positions[differing_rows[0]])
            store, accept_drift = self._stores[number], self._accept_drift
            grade = require_replay(store, self._dataset, view=view, position=position, accept_drift=accept_drift)
            self._excused[key] = ExcusedDrift(grade)
            if self.drift is None or grade.levels > self.drift.levels:
                self.drift = grade
        if key in self._excused:
            if not self._excused[key].grade.moved:
                self._require_same_samples(number, drawn, changed)
            self._excused[key].count(len(drawn.pixels), len(differing_rows), view)

    def _changed_samples(self, number: int, view: int, drawn: DrawnRows) -> npt.NDArray[np.bool_]:
        """[D] true for samples whose content is not the store's. Raises ReplayError where it is known by bytes."""
        store = self._stores[number]
        if (contents := store.identity.encoding.contents) is None:
            return np.zeros(len(drawn.positions), dtype=bool)
        stored = self._stored_at(number, view, "contents", drawn.positions)
        return changed_samples(store, drawn.positions, drawn.contents[contents], stored)

    def _require_same_samples(self, number: int, drawn: DrawnRows, changed: npt.NDArray[np.bool_]) -> None:
        """Raises ReplayError, naming the first sample that has changed."""
        if changed.any():
            position, store = int(drawn.positions[np.flatnonzero(changed)[0]]), self._stores[number]
            raise ReplayError(
                f"sample {int(store.order[position])} (position {position}) is another than {store.folder.root} was "
                f"extracted from ({int(changed.sum())} of {len(changed)} samples at hand differ), for the samples of "
                "the canary decode as they did: the drift that was accepted is the transform's; restore its file, or "
                "extract a store of this data set"
            )

    def _stored_at(self, number: int, view: int, name: str, positions: IntArray) -> Array:
        """Values of an array of a store at some positions. Those of the view that is in use are kept."""
        segment = self._stores[number].segment_of(view)
        first = segment.views.start if not segment.layout.arrays[name].by_view else view
        if (number, name) not in self._stored or self._stored[number, name][0] != first:
            values = np.zeros(segment.layout.rows, dtype=segment.layout.arrays[name].dtype)
            for needed in _whole_groups(self._positions, segment.layout.rows):
                values[needed] = segment.read(first, needed, [name]).arrays[name]
            self._stored[number, name] = (first, values)
        return self._stored[number, name][1][positions]


def _whole_groups(positions: IntArray | range, rows: int) -> Iterator[IntArray]:
    """The positions of all mixing groups that hold some of these, ascending, a number of them at a time."""
    if isinstance(positions, range):
        start, stop = positions[0] // GROUP * GROUP, min(-(-(positions[-1] + 1) // GROUP) * GROUP, rows)
        for first in range(start, stop, READ_AT_ONCE):
            yield np.arange(first, min(first + READ_AT_ONCE, stop))
        return
    groups = np.unique(positions // GROUP)
    whole_groups = (groups[:, None] * GROUP + np.arange(GROUP)).ravel()
    yield whole_groups[whole_groups < rows]


def changed_samples(store: Store, positions: IntArray, contents: Array, stored: Array) -> npt.NDArray[np.bool_]:
    """[B] true where a sample's content fingerprint is not the stored one. Raises ReplayError, naming the sample, where
    the fingerprints are over bytes."""
    changed = np.asarray(contents != stored)
    if changed.any() and store.identity.encoding.contents == "bytes":
        row = int(np.flatnonzero(changed)[0])
        position = int(positions[row])
        raise ReplayError(
            f"{_sample(store, position)} is another than {store.folder.root} was "
            f"extracted from: its bytes have fingerprint {int(contents[row]):08x}, the store has "
            f"{int(stored[row]):08x} ({int(changed.sum())} of {len(positions)} rows at hand differ); restore its "
            "file, or extract a store of this data set"
        )
    return changed


def _sample(store: Store, position: int) -> str:
    """A sample as messages name it: by its index, of texts that of the text."""
    index, sequence = int(store.order[position]), store.identity.dataset.sequence
    return f"text {index // sequence}" if sequence > 1 else f"sample {index} (position {position})"


def grade_replay(store: Store, dataset: ViewDataset, view: int) -> ReplayGrade:
    """Draw the canary rows (the first 64 positions) of a view again and compare thumbnails with the store's; struck
    ones are left out. Raises ReplayError where all are."""
    segment = store.segment_of(view)
    canary = segment.canary(view)
    positions = np.setdiff1d(np.arange(len(canary), dtype=np.int64), store.struck(view))
    if not len(positions):
        raise ReplayError(f"all canary rows of view {view} are struck: no drift can be judged; extract the views again")
    replay = dataset[ViewRequest(ViewSpan.of(view), positions)]
    differing_rows = int((replay.pixels[0] != store.load(view, positions).arrays["pixels"]).sum())
    contents, moved = store.identity.encoding.contents, 0
    if contents is not None and contents in replay.contents:
        stored = segment.read(segment.views.start, positions, ["contents"]).arrays["contents"]
        moved = int((replay.contents[contents] != stored).sum())
    levels = np.abs(thumbnails(replay.images[0]).astype(int) - canary[positions].astype(int)).mean(axis=(1, 2, 3))
    worst = float(levels.max())
    grade: Grade = "equal" if differing_rows == 0 else "drift" if worst <= DRIFT_LEVELS else "another picture"
    return ReplayGrade(grade, worst, len(positions), differing_rows, _version_texts(store, dataset, view), moved)


def _version_texts(store: Store, dataset: ViewDataset, view: int) -> tuple[str, ...]:
    """Differences between this process and the pass that wrote the view's canary, which lies in block 0 of its
    segment."""
    commit = store.segment_of(view).commits().get(0)
    stored = store.manifest.provenance if commit is None else commit.provenance
    return tuple(version_differences(stored, provenance("cpu", decoder=_decoder(stored, dataset.samples))))


def _decoder(stored: Provenance, samples: object) -> str:
    """The decoder of this process. A data set's own decoder cannot be known, and is taken to be the store's."""
    if decoder := decoder_of(samples):
        return decoder_name(decoder)
    return decoder_name("pillow") if stored.decoder.startswith("Pillow") else stored.decoder


def require_decoder(stored: Provenance, decoder: str, *, store: str, accept_drift: bool = False) -> None:
    """Files must be decoded by the store's library: crops of tensors are a few levels off those of PIL images.

    `decoder` is `Data.decoder`, `store` a name for messages. Raises ReplayError, before anything is drawn, unless drift
    is accepted.
    """
    kinds = decoder_kind(stored.decoder), decoder_kind(decoder)
    if all(kinds) and kinds[0] != kinds[1] and not accept_drift:
        raise ReplayError(
            f"{store} was extracted from images that {stored.decoder} decoded; this data set is decoded by {decoder}, "
            f"and views would be a few levels off: use --data-set decoder={kinds[0]}; only train can go on, "
            "with --accept-drift"
        )


def require_decoders(stores: Sequence[Store], decoder: str, *, accept_drift: bool) -> None:
    """Every store must be of this decoder. Raises ReplayError as `require_decoder` does."""
    for store in stores:
        name = str(store.folder.root)
        require_decoder(store.manifest.provenance, decoder, store=name, accept_drift=accept_drift)


def require_replay(store: Store, dataset: ViewDataset, *, view: int, position: int, accept_drift: bool) -> ReplayGrade:
    """Judge a row whose fingerprint differs. Returns the grade of accepted drift; raises ReplayError for all else."""
    if store.identity.dataset.sequence > 1:
        problem = f"position {position} of view {view} is not the token that the teacher read, or one before it is not"
        raise ReplayError(f"{problem}; use the texts and the tokenizer that the store was made with")
    replay = grade_replay(store, dataset, view)
    if accept_drift and replay.grade == "drift":
        return replay
    row = f"view {view} of position {position} (sample {int(dataset.order[position])})"
    canary = f"of {replay.rows} canary rows {replay.differing} differ, the worst by {replay.levels:.1f} of 255 levels"
    versions = "; versions that differ: " + (", ".join(replay.versions) or "none")
    if replay.grade == "another picture":
        advice = (
            "these are other pictures, or another transform: use the data set and transform the store was made with"
        )
    elif replay.grade == "equal":
        advice = "the canary replays exactly, so it is this sample that changed: restore its file"
    else:
        advice = (
            "same pictures, a few levels off at most: install the versions of the store, or accept with --accept-drift"
        )
    raise ReplayError(f"{row} is not the view the teacher saw: {replay.grade}, {canary}{versions}; {advice}")
