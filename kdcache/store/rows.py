"""Rows of one view in memory. A row is one packed record, so that a batch is one gather, decoded a batch at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.base.arrays import WIDTH
from kdcache.labels.encoding import Encoding, LabelSpace
from kdcache.labels.soft_labels import SoftLabels
from kdcache.store.array_spec import ArraySpec

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class EncodedRows:
    """Rows of one view as the store holds them, positions first: packed `records` [B], and `loose` arrays."""

    encoding: Encoding
    space: LabelSpace
    positions: IntArray
    loose: dict[str, Array] = field(default_factory=dict)
    records: Array | None = None

    @cached_property
    def arrays(self) -> dict[str, Array]:
        """All arrays by name; those of the records share their memory."""
        if self.records is None:
            return self.loose
        return {name: self.records[name] for name in self.records.dtype.names or ()} | self.loose

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.loose.values()) + (0 if self.records is None else self.records.nbytes)

    def take(self, rows: IntArray, *, positions: IntArray | None = None) -> "EncodedRows":
        """Rows `rows` of these, counted from 0. A caller that knows their `positions` saves looking them up."""
        return replace(
            self,
            positions=self.positions.take(rows) if positions is None else positions,
            loose={name: array.take(rows, axis=0) for name, array in self.loose.items()},
            records=None if self.records is None else self.records.take(rows),
        )

    def soft_labels(self) -> SoftLabels:
        """The rows decoded to f32; classes keep their dtype."""
        return self.encoding.decode(self.arrays, self.space)


def record_dtype(specs: Mapping[str, ArraySpec]) -> np.dtype[Any]:
    """The record of one row of some arrays: widest numbers first, so that each is aligned. Its size is a multiple of
    the widest number's."""
    names = sorted(specs, key=lambda name: -WIDTH[specs[name].dtype])
    formats = [(specs[name].dtype, _row_shape(specs[name])) for name in names]
    sizes = [np.dtype(dtype).itemsize for dtype in formats]
    offsets = [sum(sizes[:count]) for count in range(len(sizes))]
    widest = max((WIDTH[spec.dtype] for spec in specs.values()), default=1)
    return _packed_dtype(names, formats, offsets, -(-sum(sizes) // widest) * widest)


def copied_whole(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The same record with each field as plain bytes, which numpy copies a field at a time, not a number at a time."""
    fields: Mapping[str, Any] = dtype.fields or {}
    formats = [f"V{field[0].itemsize}" for field in fields.values()]
    return _packed_dtype(list(fields), formats, [field[1] for field in fields.values()], dtype.itemsize)


def _packed_dtype(names: list[str], formats: list[Any], offsets: list[int], itemsize: int) -> np.dtype[Any]:
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": itemsize})


def _row_shape(spec: ArraySpec) -> tuple[int, ...]:
    return tuple(size for axis, size in enumerate(spec.shape) if axis not in (0, spec.block_axis))
