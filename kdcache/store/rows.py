"""Rows of one view in memory. A row is one packed record, so that a batch is one gather, decoded a batch at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.base.arrays import WIDTH
from kdcache.labels.quantising import decode_label, decode_logits, decode_tail, last_steps
from kdcache.labels.soft_labels import FullLabels, SoftLabels, TopKLabels
from kdcache.labels.tail_packing import unpack
from kdcache.store.layout import ArraySpec
from kdcache.store.manifest import Identity

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class EncodedRows:
    """Rows of one view as the store holds them, positions first: packed `records` [B], and `loose` arrays."""

    identity: Identity
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
        return EncodedRows(
            self.identity,
            self.positions.take(rows) if positions is None else positions,
            {name: array.take(rows, axis=0) for name, array in self.loose.items()},
            None if self.records is None else self.records.take(rows),
        )

    def soft_labels(self) -> SoftLabels:
        """The rows decoded to f32; classes keep their dtype."""
        encoding, teacher = self.identity.encoding, self.identity.teacher
        label = decode_label(self.arrays["label"]) if encoding.k is not None else self._full_label()
        if encoding.k is None:
            logits = self.arrays["logits"].astype(np.float32)
            return FullLabels(logits, label, teacher.classes, teacher.masked_classes)
        classes = np.ascontiguousarray(self.arrays["classes"])  # a copy, which keeps no records in memory
        gaps, tail = self.arrays.get("gaps"), self.arrays["tail"]
        if encoding.packing == "residuals":
            tail = unpack(tail, last_steps(gaps, encoding.quantisation), self.identity.tail_classes)
        logits = decode_logits(classes, gaps, encoding.quantisation)
        return TopKLabels(classes, logits, decode_tail(tail), label, teacher.classes, teacher.masked_classes)

    def _full_label(self) -> Array:
        """Logits of the hard labels, [B] or [B, 2] f32, NaN for none and for masked classes. The full encoding stores
        no label distance: it is read from the logits."""
        labels = self.arrays["hard"].astype(np.int64)
        classes = labels if labels.ndim == 2 else labels[:, None]
        logits = np.take_along_axis(self.arrays["logits"], np.maximum(classes, 0), axis=1).astype(np.float32)
        label_logits = np.where((classes >= 0) & np.isfinite(logits), logits, np.float32(np.nan))
        return label_logits if labels.ndim == 2 else label_logits[:, 0]


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
