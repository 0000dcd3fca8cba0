"""A curriculum: the rows that the teacher finds easy come first, and all rows from some epoch on."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch

from kdcache.base.arrays import IntArray
from kdcache.base.pacing import Pacing
from kdcache.errors import InvalidInputError
from kdcache.objectives.batch import Batch
from kdcache.objectives.catalogue import name_of, require_weighable
from kdcache.objectives.joined import AnyObjective, objectives_in
from kdcache.pipelines.settings import TrainSettings
from kdcache.store.store import Store
from kdcache.views.data import Data
from kdcache.whole_store.confidence import label_losses
from kdcache.whole_store.labelled_pieces import require_one_label


@dataclass
class Curriculum:
    """The rows of a store that count in each epoch: the easiest share of those of its view, by -log p(hard label).

    Each view is read once while it is in use. All processes count the same rows, whoever draws them.
    """

    pacing: Pacing
    store: Store
    _view: int = -1
    _ranks: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    _rows: int = 0

    def weighed(self, batch: Batch) -> Batch:
        """The batch with weight 1 for rows that count at its epoch and 0 for others; as it is once all do."""
        if batch.epoch >= self.pacing.epochs:
            return batch
        counts = self.counting(batch.epoch, batch.view)[batch.positions.numpy()]
        return replace(batch, weight=torch.from_numpy(counts.astype(np.float32)).to(batch.y.device))

    def counting(self, epoch: int, view: int) -> npt.NDArray[np.bool_]:
        """[N] true for the positions that count in an epoch of a view. Of equal rows the one at the lower position is
        the easier; rows without a label wait until all count."""
        if view != self._view:
            losses = label_losses(self.store, view)
            order = np.argsort(losses, kind="stable")  # NaN, of rows without a label, comes last
            self._ranks = np.empty(len(losses), np.int64)
            self._ranks[order] = np.arange(len(losses))
            self._view, self._rows = view, int((~np.isnan(losses)).sum())
        counts: npt.NDArray[np.bool_] = self._ranks < max(1, round(self.pacing.share(epoch) * self._rows))
        return counts


def chosen_curriculum(
    settings: TrainSettings, data: Data, stores: Sequence[Store], objective: AnyObjective
) -> Curriculum | None:
    """The curriculum that the settings name; None without one. Raises InvalidInputError where there is not one store,
    no row has a label, or an objective has no loss of each row."""
    if not settings.curriculum:
        return None
    if len(stores) != 1:
        raise InvalidInputError(f"--curriculum ranks the rows of one --store; {len(stores)} were given")
    if not data.is_labelled:
        raise InvalidInputError(
            f"--curriculum {settings.curriculum} ranks rows by the teacher's loss on their hard labels, and no row of "
            "the data set has one; give labels, or leave it out"
        )
    require_one_label(stores[0], advice="train on an unmixed store")
    stores[0].identity.encoding.require_log_probs("--curriculum")
    require_weighable({name_of(part.term): part.term for part in objectives_in(objective)}, "--curriculum")
    return Curriculum(Pacing.parse(settings.curriculum), stores[0])
