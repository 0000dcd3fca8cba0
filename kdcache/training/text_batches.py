"""Batches of whole texts, from rows that are their tokens.

Shape letters: B texts, S tokens of a text.
"""

from dataclasses import replace

from kdcache.objectives.batch import Batch


def as_texts(batch: Batch, sequence: int) -> Batch:
    """The batch of B texts whose B S rows lie one after the other: `y`, `mask`, `positions` and soft labels
    [B, S, ...]. Pictures stay as they are."""
    if sequence == 1:
        return batch
    count = len(batch.y) // sequence
    return replace(
        batch,
        y=(y := batch.y.reshape(count, sequence)),
        mask=y >= 0,
        positions=batch.positions.reshape(count, sequence),
        teachers=tuple(
            soft_labels.map(lambda values: values.reshape(count, sequence, *values.shape[1:]))
            for soft_labels in batch.teachers
        ),
    )
