"""Soft labels as a store hands them out: encoded, decoded and made tensors, with class means from the rows themselves.

Shape letters: N rows, C classes.
"""

from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdcache.labels.encodings import encoding_of
from kdcache.labels.full import FullLabels
from kdcache.labels.reduction import centre, reduce_topk, tail_sums
from kdcache.labels.soft_labels import SoftLabels
from kdcache.labels.topk import TopKEncoding
from kdcache.labels.topk_labels import TopKLabels
from kdcache.objectives.batch import Batch
from kdcache.store.reading import EncodedRows
from tests.kits.encoding import encode_full, encode_topk
from tests.kits.stores import make_identity

Array = npt.NDArray[Any]
Labels = TypeVar("Labels", FullLabels, TopKLabels)


def full_labels(logits: Array, hard: Array, masked: tuple[int, ...] = ()) -> FullLabels:
    """Logits [N, C] in f16, hard labels [N] or [N, 2]."""
    arrays = {"logits": encode_full(centre(logits, masked)).arrays["logits"], "hard": hard}
    soft = _decoded(arrays, logits, None, masked)
    assert isinstance(soft, FullLabels)
    return soft.to()


def topk_labels(
    logits: Array, hard: Array, k: int, masked: tuple[int, ...] = (), *, quantisation: str = "default"
) -> TopKLabels:
    """The k best of logits [N, C], quantised; hard labels [N] or [N, 2]; with the class means of these rows."""
    columns = hard if hard.ndim == 2 else hard[:, None]
    rows = reduce_topk(logits, columns, k, masked)
    encoding = TopKEncoding.model_validate({"k": k, "quantisation": quantisation})
    arrays = {name: value[0] for name, value in encode_topk(_one_view(rows), encoding, logits.shape[-1]).arrays.items()}
    arrays["tail"] = arrays["tail"].T
    soft = _decoded(arrays, logits, k, masked, quantisation)
    assert isinstance(soft, TopKLabels)
    if soft.tail_classes:
        sums, counts = tail_sums(logits, rows.classes, masked)
        soft = replace(soft, class_means=(sums / np.maximum(counts, 1)).astype(np.float32))
    return soft.to()


def _one_view(rows: Any) -> Any:
    return replace(rows, **{each.name: getattr(rows, each.name)[None] for each in fields(rows)})


def _decoded(
    arrays: dict[str, Array], logits: Array, k: int | None, masked: tuple[int, ...], quantisation: str = "default"
) -> SoftLabels:
    encoding = encoding_of({"name": "full" if k is None else "topk", "k": k, "quantisation": quantisation})
    order = np.arange(len(logits))
    identity = make_identity(order, order, classes=logits.shape[-1], encoding=encoding, masked=masked)
    return EncodedRows(identity.encoding, identity.space, order, arrays).soft_labels()


def shaped(soft: Labels, *axes: int) -> Labels:
    """The same rows with leading axes in place of N."""
    parts = {name: getattr(soft, name) for name in ("logits", "label", "classes", "tail") if name in vars(soft)}
    return replace(soft, **{name: value.unflatten(0, axes) for name, value in parts.items()})


def batch_of(*teachers: SoftLabels, y: Tensor, **more: Any) -> Batch:
    """A batch without pictures: labels `y`, and any other field of Batch by its name."""
    common: dict[str, Any] = {"y2": None, "lam": None, "view": 0, "epoch": 0, "step": 0, "teachers": teachers}
    return Batch(images=torch.empty(len(y), 0), y=y, positions=torch.arange(len(y)), **(common | more))


def value_and_gradient(loss: Any, student: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """loss(student, *rest) and its gradient with respect to the student's logits."""
    student = student.detach().clone().requires_grad_()
    value = loss(student, *rest)
    value.backward()
    assert student.grad is not None
    return value.detach(), student.grad


def require_equal(found: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor], *, relative: float = 1e-6) -> None:
    """Values agree relatively, gradients in the norm of their difference over the norm of the wanted one."""
    value, gradient = found
    assert abs(float(value - wanted[0])) <= relative * abs(float(wanted[0])) + 1e-13
    difference = (gradient.reshape(wanted[1].shape) - wanted[1]).norm()
    assert float(difference) <= relative * float(wanted[1].norm()) + 1e-13


def real_student(logits: Array, seed: int = 1) -> Tensor:
    """[N, C] f64 of a student who half agrees: 0.7 times the teacher's logits plus noise of 1 nat."""
    noise = np.random.RandomState(seed).normal(size=logits.shape)
    return torch.from_numpy(0.7 * logits.astype(np.float64) + noise)
