"""Attention IoU compares where two networks look: maps weighted by the head, resized, scaled, cut at .4.

Shape letters: B rows, C classes, D channels of a map, h, w its sides; H, W the sides to which both are resized.
"""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from kdcache.errors import InvalidInputError
from kdcache.measures.facts import Facts, Value

THRESHOLD = 0.4
FLAT = 1e-5  # a range beneath this share of the largest number is an error of arithmetic
FACTS = {
    "attention_iou": Facts(
        "share",
        "mean |A & B| / |A or B|, A = {min-max of bilinear sum_d (sum_c W_cd) F_d > .4}; with labels W_yd",
        "Guo et al. 2024; by label Zhou et al. 2016, CAM",
        ("maps", "heads"),
    )
}


class AttentionTally:
    """A tally of attention holds sums over rows of the IoU of two networks' attention. Rows where neither network's map
    varies have no attention and are left out.

    Args:
        size: The sides (H, W) to which both are resized, usually those of the pictures.

    Examples:
        >>> from kdcache.measures.attention import AttentionTally
        >>> tally = AttentionTally((8, 8))
        >>> tally.update((maps[0], torch.ones(3, 2)), (maps[1], head.weight))
        >>> round(tally.result()["attention_iou"].value, 3)
        0.383
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.rows, self._total = 0, 0.0

    @torch.no_grad()
    def update(
        self, student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], labels: Tensor | None = None
    ) -> None:
        """Count a batch. D, h and w of the two sides may differ.

        Args:
            student: A map [B, D, h, w] before pooling, and the head's weight [C, D].
            teacher: The same of the teacher.
            labels: [B] the class whose attention is compared (CAM), by default the sum over all classes.

        Raises InvalidInputError for shapes that do not fit, and for maps that are not finite.
        """
        masks = [self._mask(*side, labels, noun) for side, noun in ((student, "student"), (teacher, "teacher"))]
        if len(masks[0]) != len(masks[1]):
            raise InvalidInputError(f"the student's map has {len(masks[0])} rows and the teacher's {len(masks[1])}")
        common = (masks[0] & masks[1]).flatten(1).sum(dim=1).double()
        either = (masks[0] | masks[1]).flatten(1).sum(dim=1).double()
        self.rows += int((either > 0).sum())
        self._total += float((common / either.clamp_min(1.0)).sum())

    def _mask(self, map_BDhw: Tensor, head_CD: Tensor, labels: Tensor | None, noun: str) -> Tensor:
        if map_BDhw.ndim != 4 or head_CD.ndim != 2 or map_BDhw.shape[1] != head_CD.shape[1]:
            raise InvalidInputError(
                f"the {noun}'s map has the shape {tuple(map_BDhw.shape)} and its head {tuple(head_CD.shape)}; "
                "attention takes [B, D, h, w] and [C, D]"
            )
        if labels is not None and (labels.shape != map_BDhw.shape[:1] or labels.is_floating_point()):
            raise InvalidInputError(
                f"labels have the shape {tuple(labels.shape)} for the {noun}'s map of {len(map_BDhw)} rows; give "
                "integers [B]"
            )
        if labels is not None and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(head_CD):
            raise InvalidInputError(
                f"labels are {int(labels.min())} to {int(labels.max())}; the {noun}'s head has {len(head_CD)} classes"
            )
        if not bool(map_BDhw.isfinite().all()):
            raise InvalidInputError(f"the {noun}'s map holds NaN or infinity; attention takes finite numbers")
        weight_BD = head_CD.sum(dim=0).expand(len(map_BDhw), -1) if labels is None else head_CD[labels]
        attention = torch.einsum("bdhw,bd->bhw", map_BDhw.float(), weight_BD.to(map_BDhw.device).float())
        if not len(attention):
            return attention.new_zeros((0, *self.size), dtype=torch.bool).cpu()
        attention = interpolate(attention[:, None], self.size, mode="bilinear", align_corners=False)[:, 0]
        low, high = attention.amin(dim=(1, 2), keepdim=True), attention.amax(dim=(1, 2), keepdim=True)
        varies = high - low > FLAT * torch.maximum(high.abs(), low.abs())
        return (varies & (attention - low > THRESHOLD * (high - low))).cpu()

    def __add__(self, other: "AttentionTally") -> "AttentionTally":
        if self.size != other.size:
            raise InvalidInputError(f"attention was resized to {self.size} and to {other.size}; compare at one size")
        total = AttentionTally(self.size)
        total.rows, total._total = self.rows + other.rows, self._total + other._total
        return total

    def result(self) -> dict[str, Value]:
        """`attention_iou`; nothing without rows."""
        if not self.rows:
            return {}
        return {"attention_iou": Value(value=self._total / self.rows, unit="share", rows=self.rows)}
