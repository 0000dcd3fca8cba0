"""Rows are one batch as measures see it: the student's softmax is taken once, and what several measures need once.

Work on [B, C] is done on the device of the logits, in f32 (f64 where the logits are f64). Everything [B] comes out as
numpy, in f64, i64 or bool. Shape letters: B rows, C classes, K classes that the teacher's soft labels hold, T top
classes of the student, k classes whose order is compared.
"""

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdcache.errors import InvalidInputError
from kdcache.labels.reduction import best_classes
from kdcache.labels.soft_labels import SoftLabels

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

TOP = 16  # top classes of the student: for top-5, and for the bound of `nearest_teacher`
DEFAULT_K = 5
FLOOR = -1e5  # nats, below every log-probability that a store holds; its exponential is 0


class Rows:
    """One batch: logits [B, C], and what there is of soft labels, hard labels [B] (-1 for none) and decisions of a
    baseline [B]. `k`: the classes whose overlap and order are compared, by default 5, or all that are held."""

    def __init__(
        self,
        logits_BC: Tensor,
        soft: SoftLabels | None = None,
        hard_B: Tensor | None = None,
        baseline_B: Tensor | None = None,
        *,
        k: int | None = None,
    ) -> None:
        if logits_BC.ndim != 2:
            raise InvalidInputError(
                f"logits have the shape {tuple(logits_BC.shape)}; measures take [B, C]: flatten them"
            )
        dtype = torch.float64 if logits_BC.dtype == torch.float64 else torch.float32
        self.count, self.classes = logits_BC.shape
        _require_finite(logits_BC, "logits of the student")
        self.log_q = torch.log_softmax(logits_BC.detach().to(dtype), dim=-1)
        self._hard = self._ids(hard_B, "hard labels", lowest=-1)
        self._baseline = self._ids(baseline_B, "decisions of the baseline", lowest=0)
        self.soft = None if soft is None else self._soft(soft)
        self.k = self._size(k)

    def _ids(self, ids_B: Tensor | None, noun: str, *, lowest: int) -> Ints | None:
        if ids_B is None:
            return None
        if ids_B.shape != (self.count,) or ids_B.is_floating_point():
            raise InvalidInputError(
                f"{noun} are {str(ids_B.dtype).removeprefix('torch.')} of the shape {tuple(ids_B.shape)}; "
                f"logits of {self.count} rows take integers [{self.count}]"
            )
        ids = ids_B.detach().cpu().numpy().astype(np.int64)
        if self.count and not (lowest <= ids.min() and ids.max() < self.classes):
            wrong = ids.max() if ids.max() >= self.classes else ids.min()
            raise InvalidInputError(
                f"{noun} hold the class {wrong}; logits of {self.classes} classes take {lowest} to {self.classes - 1}"
            )
        return ids

    def _soft(self, soft: SoftLabels) -> SoftLabels:
        if (number := soft.subclasses) > 1:
            raise InvalidInputError(
                f"the soft labels have {number} subclasses a class, and measures are of classes; give soft.by_class() "
                f"with logits of the classes: class_logits(logits, {number}) where they have subclasses too"
            )
        if soft.num_classes != self.classes:
            raise InvalidInputError(
                f"the soft labels are of {soft.num_classes} classes and the logits of {self.classes}; ask a store of "
                "the same classes"
            )
        soft.best(1)  # draws refuse here
        if soft.logits.ndim != 2 or len(soft.logits) != self.count:
            raise InvalidInputError(
                f"the soft labels have the shape {tuple(soft.logits.shape)} for logits of {self.count} rows; give the "
                "rows of the same batch"
            )
        soft = soft.to(str(self.log_q.device), dtype=self.log_q.dtype)
        normalizer = soft.log_normalizer(1.0)
        if not bool(normalizer.isfinite().all()):
            row = int((~normalizer.isfinite()).nonzero()[0])
            raise InvalidInputError(f"soft labels of row {row} hold NaN; leave out the rows that were struck")
        return soft

    def _size(self, k: int | None) -> int:
        """Raises InvalidInputError for a k that is more than the soft labels hold."""
        held = self.classes if self.soft is None else min(self.soft.k, self.classes - len(self.soft.masked))
        if k is not None and self.soft is not None and not 1 <= k <= held:
            raise InvalidInputError(f"the top {k} classes are to be compared and the soft labels hold {held}: choose k")
        return min(DEFAULT_K, held) if k is None else k

    def has(self, needs: tuple[str, ...]) -> bool:
        """True where the batch has all of labels, teacher and baseline that are needed."""
        given = {"labels": self._hard, "teacher": self.soft, "baseline": self._baseline}
        return all(given.get(need) is not None for need in needs)

    @cached_property
    def q(self) -> Tensor:
        """[B, C] probabilities of the student."""
        return self.log_q.exp()

    @cached_property
    def best_q(self) -> Tensor:
        """[B, T] ids of the student's top classes, best first."""
        best: Tensor = best_classes(self.log_q, min(max(TOP, self.k), self.classes))
        return best

    @cached_property
    def top_q(self) -> Ints:
        """[B] the student's decision."""
        return ids_of(self.best_q[:, 0])

    @cached_property
    def confidence(self) -> Floats:
        """[B] the largest probability of the student."""
        return floats_of(self.log_q.gather(-1, self.best_q[:, :1])[:, 0].exp())

    @cached_property
    def labelled(self) -> Flags:
        """[B] True where there is a hard label."""
        return np.asarray(self.hard >= 0)

    @property
    def hard(self) -> Ints:
        """[B] hard labels, -1 for none."""
        assert self._hard is not None
        return self._hard

    @property
    def baseline(self) -> Ints:
        """[B] the baseline's decisions."""
        assert self._baseline is not None
        return self._baseline

    @cached_property
    def hits(self) -> Flags:
        """[B] True where the decision is the hard label."""
        return np.asarray(self.top_q == self.hard)

    @cached_property
    def log_q_label(self) -> Floats:
        """[B] the student's log-probability of the hard label; of class 0 where there is none."""
        return floats_of(self.log_q.gather(-1, self.label_ids[:, None])[:, 0])

    @cached_property
    def label_ids(self) -> Tensor:
        """[B] hard labels on the device, 0 where there is none."""
        return torch.from_numpy(np.maximum(self.hard, 0)).to(self.log_q.device)

    @property
    def teacher(self) -> SoftLabels:
        """The teacher's soft labels, tensors of the dtype of `log_q`."""
        assert self.soft is not None
        return self.soft

    @cached_property
    def normalizer(self) -> Tensor:
        """[B] the teacher's logsumexp."""
        normalizer: Tensor = self.teacher.log_normalizer(1.0)
        return normalizer

    @cached_property
    def log_p(self) -> Tensor:
        """[B, K] the teacher's log-probabilities of the classes that are held, at FLOOR or above."""
        log_p: Tensor = self.teacher.logits - self.normalizer[:, None]
        return log_p.clamp_min(FLOOR) if self.teacher.masked else log_p

    @cached_property
    def best_p(self) -> Tensor:
        """[B, max(k, 2)] ids of the teacher's best classes, best first; fewer where it holds fewer."""
        held = min(self.teacher.k, self.classes - len(self.teacher.masked))
        best: Tensor = self.teacher.best(min(max(self.k, 2), held))
        return best

    @cached_property
    def top_p(self) -> Ints:
        """[B] the teacher's decision."""
        return ids_of(self.best_p[:, 0])

    @cached_property
    def log_p_best(self) -> Tensor:
        """[B, max(k, 2)] the teacher's log-probabilities of `best_p`."""
        if self.teacher.COMPLETE:
            return self.log_p.gather(-1, self.best_p)
        return self.log_p[:, : self.best_p.shape[1]]

    @property
    def inexact(self) -> int:
        """The number of rows whose teacher has a tail of several classes: all, or none."""
        return self.count if self.teacher.tail_classes > 1 else 0


def floats_of(values_B: Tensor) -> Floats:
    """[B] in f64, on the CPU."""
    return np.asarray(values_B.cpu().numpy(), dtype=np.float64)


def ids_of(values_B: Tensor) -> Ints:
    """[B] in i64, on the CPU."""
    return np.asarray(values_B.cpu().numpy(), dtype=np.int64)


def count_of(values: Any) -> Floats:
    """A sum [] in f64."""
    return np.asarray(values, dtype=np.float64)


def _require_finite(values: Tensor, noun: str) -> None:
    """Raises InvalidInputError, naming the first row."""
    finite = values.isfinite()
    if bool(finite.all()):
        return
    rows = (~finite.all(dim=-1)).nonzero()[:, 0]
    row = int(rows[0])
    value = float(values[row][~finite[row]][0])
    raise InvalidInputError(
        f"{noun} hold {value} in {len(rows)} of {len(values)} rows, first in row {row}; measures take finite numbers"
    )
