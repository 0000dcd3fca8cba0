"""Terms whose loss is a mean over rows, which a batch may weigh."""

from torch import Tensor

from kdcache.objectives.batch import Batch
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.row_means import mean_of_rows
from kdcache.objectives.targets import Targets


class ByRows:
    """A term by rows is the mean of a loss a row, `rows`: so its rows can be weighed.

    Examples:
        >>> from kdcache.objectives.by_rows import ByRows
        >>> class Distance(ByRows):
        ...     def rows(self, outputs, targets, batch):
        ...         return (outputs.logits - targets.logits()).abs().mean(dim=-1)
        >>> Objective(Distance())(logits, batch).ndim
        0
    """

    def rows(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        """The loss of each row [B] in nats."""
        raise NotImplementedError

    def __call__(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        return mean_of_rows(self.rows(outputs, targets, batch), batch)
