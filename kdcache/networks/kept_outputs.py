"""Outputs of a teacher that a store keeps beside its logits: pooled features and taps, narrowed to f16 and checked.

Shape letters: B rows of a batch, V views, R rows of a block, A kept arrays.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from kdcache.errors import BadOutputsError, InvalidInputError
from kdcache.labels.encoding import Encoding
from kdcache.labels.reduction import Array
from kdcache.networks.answer import Answer

LARGEST = "largest outputs"  # field [B, A]: of each row and array the largest absolute value, NaN where one is NaN
NAMED = 5  # samples that a message lists
F16_MAX = 65504


def output_fields(answer: Answer, encoding: Encoding, rows: int) -> dict[str, Tensor]:
    """The kept outputs [B, ...] f16 of the first `rows` rows, on their device, by array, and `LARGEST`; none where the
    encoding keeps none. Raises InvalidInputError for an output that is missing or has another shape than the
    encoding's."""
    taps = {encoding.tap_array(tap.name): answer.taps.get(tap.name) for tap in encoding.taps}
    outputs = {"features": answer.features} | taps
    fields = {}
    for name, array in encoding.outputs.items():
        values = outputs[name]
        if name == "features" and (values is None or values.shape[1:] != array.back):
            raise InvalidInputError(
                "the teacher gives no pooled features before its head; extract without --keep features"
            )
        if values is None or values.shape[1:] != array.back:
            shape = "nothing" if values is None else list(values.shape[1:])
            raise InvalidInputError(
                f"{array.text} has shape {shape} for one batch and {list(array.back)} for another; keep a layer whose "
                "output does not depend on the batch"
            )
        fields[name] = values[:rows].half()
    if fields:
        fields[LARGEST] = torch.stack([_largest(values) for values in fields.values()], dim=1)
    return fields


def _largest(values_B: Tensor) -> Tensor:
    """[B] the largest absolute value of each row; NaN where one is NaN."""
    flat = values_B.flatten(1)
    return torch.maximum(flat.amax(dim=1), -flat.amin(dim=1))


def require_storable(
    largest_VRA: Array, encoding: Encoding, row_name: Callable[[int, int], str], absent_VR: Array
) -> None:
    """Raises BadOutputsError, naming the samples, for outputs that f16 does not hold, among rows that are not
    `absent`. `row_name(view, row)` names a row of the block, both counted from 0."""
    wrong_VRA = ~np.isfinite(largest_VRA) & ~absent_VR[..., None]
    if not wrong_VRA.any():
        return
    place = int(wrong_VRA.any(axis=(0, 1)).argmax())
    rows = np.argwhere(wrong_VRA[..., place])
    names = ", ".join(row_name(int(view), int(row)) for view, row in rows[:NAMED])
    is_nan = bool(np.isnan(largest_VRA[..., place][wrong_VRA[..., place]]).any())
    array, text = list(encoding.outputs.items())[place]
    problem = "NaN" if is_nan else f"Inf, or numbers beyond {F16_MAX}, the largest of f16"
    name = "features" if array == "features" else f"tap:{encoding.taps[int(array.partition('.')[2])].name}"
    raise BadOutputsError(
        f"the {text.text} holds {problem} for {len(rows)} rows: {names}; nothing of this block was written. Extract to "
        f"another store without {name} in --keep, or keep a layer behind a normalisation instead"
    )
