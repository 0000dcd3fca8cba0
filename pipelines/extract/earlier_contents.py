"""A later pass is held against the earlier ones: every sample must be the one that they saw."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kdcache.base.arrays import Array
from kdcache.errors import ReplayError
from kdcache.store.segment import Segment
from kdcache.store.store import Store
from kdcache.views.contents import UNKNOWN
from kdcache.views.draw import ViewDataset
from kdcache.views.replay import changed_samples, grade_replay


@dataclass(frozen=True)
class EarlierContents:
    """The content fingerprints of the store's other passes, for a pass that writes `segment`."""

    segment: Segment
    dataset: ViewDataset

    @cached_property
    def _store(self) -> Store:
        return Store.open_for_writing(self.segment.folder.root)

    @cached_property
    def _excused(self) -> bool:
        """True where samples decode to other values than they did, a little off."""
        store = self._store.snapshot((0,))
        views = [segment.views.start for segment in store.segments if 0 in segment.commits()]
        if not views:
            return False
        replay = grade_replay(store, self.dataset, views[0])
        return replay.grade == "drift" and replay.moved > 0

    def require_same(self, block: int, contents: Array) -> None:
        """Raises ReplayError where a sample of the block, `contents` [R] u32, is another than an earlier pass saw. One
        that a pass could not read is not compared with it."""
        start, stop = self.segment.layout.block_rows(block)
        positions = np.arange(start, stop)
        for segment in self._store.segments:
            if segment.views == self.segment.views:
                continue
            blocks = positions // segment.layout.block
            committed = segment.snapshot(np.unique(blocks).tolist())  # another writer's blocks come while this one runs
            seen = positions[np.isin(blocks, list(committed.commits()))]
            stored = committed.read(segment.views.start, seen, ["contents"]).arrays["contents"]
            known = (stored != UNKNOWN) & (contents[seen - start] != UNKNOWN)
            seen, stored = seen[known], stored[known]
            changed = changed_samples(self._store, seen, contents[seen - start], stored)
            if changed.any() and not self._excused:
                position = int(seen[np.flatnonzero(changed)[0]])
                raise ReplayError(
                    f"sample {int(self._store.order[position])} (position {position}) does not decode to what it did "
                    f"when {segment.layout.name} was written, and the canary of that pass does: the sample has "
                    "changed; restore it, or use another store path"
                )
