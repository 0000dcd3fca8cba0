"""The tokens of texts that count, as rows: an objective knows no texts.

Shape letters: B texts, S tokens of a text, R of their tokens that count, C classes.
"""

from dataclasses import replace

from kdcache.objectives.batch import Batch
from kdcache.objectives.outputs import Outputs


def counted_rows(outputs: Outputs, batch: Batch) -> tuple[Outputs, Batch]:
    """Outputs and batch of the R tokens that count, from those of texts: logits [R, C] of [B, S, C], and so all that
    the batch has of tokens. A batch without a mask stays as it is, as do `images`."""
    if batch.mask is None:
        return outputs, batch
    rows = batch.mask.flatten().nonzero()[:, 0]
    logits, y = outputs.logits.flatten(0, 1), batch.y.flatten()
    teachers = tuple(soft_labels.flat() for soft_labels in batch.teachers)
    positions = batch.positions.flatten()
    if len(rows) < len(y):
        logits, y, teachers = logits[rows], y[rows], tuple(soft_labels.take(rows) for soft_labels in teachers)
        positions = positions[rows.to(positions.device)]
    weight = None if batch.weight is None else batch.weight.expand_as(batch.mask).flatten()[rows]
    rows_alone = replace(batch, y=y, teachers=teachers, positions=positions, weight=weight, mask=None)
    return replace(outputs, logits=logits), rows_alone
