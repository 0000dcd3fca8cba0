"""The classifier that is kept is held against what the teacher answers: do all logits follow from features and head?

Shape letters: B rows of a batch, C classes, D width of the features.
"""

from dataclasses import dataclass

import numpy as np

from kdcache.base.arrays import Array
from kdcache.store.all_logits import deviation, head_logits, normalised
from kdcache.store.manifest import Identity


@dataclass
class HeadCheck:
    """The rows whose answers features and head do not give, among those that were asked. `largest`: the difference of
    log-probabilities that is furthest beyond its `limit`, what rounding and the encoding explain."""

    identity: Identity
    head: dict[str, Array]
    rows: int = 0
    wrong: int = 0
    largest: float = 0.0
    limit: float = 0.0

    @classmethod
    def of(cls, identity: Identity, head: dict[str, Array]) -> "HeadCheck | None":
        """The check of a store to be; None where it will not give its logits by features and head."""
        encoding = identity.encoding
        gives = encoding.features and encoding.head and not (encoding.COMPLETE or encoding.DRAWN)
        return cls(identity, head) if gives else None

    def add(self, features_BD: Array, logits_BC: Array) -> None:
        """Compare a batch, by its features and answered logits in f32. Rows with NaN or Inf count nowhere: they are
        refused when they are written."""
        masked = list(self.identity.teacher.masked_classes)
        answered_BC = logits_BC.astype(np.float32)
        answered_BC[:, masked] = 0.0
        usable = np.isfinite(answered_BC).all(axis=1) & np.isfinite(features_BD).all(axis=1)
        answered_BC[:, masked] = -np.inf
        head_BC, error_B = head_logits(features_BD[usable], self.head, masked)
        if not len(head_BC):
            return
        difference, limit = deviation(
            normalised(head_BC), normalised(answered_BC[usable]), error_B, self.identity.encoding
        )
        self.rows += len(difference)
        self.wrong += int((difference > limit).sum())
        place = int((difference - limit).argmax())
        if difference[place] - limit[place] > self.largest - self.limit:
            self.largest, self.limit = float(difference[place]), float(limit[place])

    def notes(self) -> tuple[str, ...]:
        """A note where they differ."""
        if not self.wrong:
            return ()
        return (
            f"features and head do not give the answers to {self.wrong} of {self.rows} clean rows: log-probabilities "
            f"differ by up to {self.largest:.3g}, rounding explains {self.limit:.3g}. The teacher does more than its "
            "last linear layer: features and head are kept as they are, and Store.logits will refuse; where all logits "
            "are wanted, extract with --encoding full",
        )
