"""The view plan as plain data, and the keys that make view v of a sample a pure function of it.

All functions take and give numbers: a second implementation needs xxh3-64, MT19937 and this file.
"""

import struct
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xxhash
from pydantic import BaseModel, ConfigDict, Field

from kdcache.base.arrays import IntArray

GROUP = 64  # positions among which mixing partners are drawn
LAMBDA_STEP = 2.0**-16  # lambdas are rounded to this, so that another libm does not change a fingerprint


class TransformSpec(BaseModel):
    """A transform spec names the transform that draws a view, as plain data.

    Attributes:
        name: One of kdcache's transforms, or `file.py:callable` or `package.module:callable` of your own.
        arguments: The arguments that it is made with.
        text: The source text of a callable of your own, so that another text is another plan.

    Examples:
        >>> store.identity.plan.transform.name
        'light'
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    text: str = ""


class ViewPlan(BaseModel):
    """A view plan is transform, mixing and seed: a view depends on them, on the dataset index and on the view's number
    alone.

    Attributes:
        transform: The transform, see `TransformSpec`.
        mix: The mixing of rows: "none", "mixup" (Zhang et al. 2018) or "cutmix" (Yun et al. 2019).
        mix_alpha: Both parameters of the Beta distribution of lambda, above 0.
        seed: The seed of all views, 0 to 2^63 - 1.

    Examples:
        >>> ViewPlan(transform=TransformSpec(name="crop"), mix="mixup", mix_alpha=0.2).seed
        0
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    transform: TransformSpec
    mix: Literal["none", "mixup", "cutmix"] = "none"
    mix_alpha: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    seed: int = Field(default=0, ge=0, lt=2**63)


@dataclass(frozen=True)
class Mixing:
    """The mixing of some rows.

    `partners` [B] i64 positions, a row's own where it stays unmixed; `lam` [B] f64 weight of the row itself; `boxes`
    [B, 4] i64 (x1, y1, x2, y2) that CutMix pastes from the partner, empty under mixup.
    """

    partners: IntArray
    lam: npt.NDArray[np.float64]
    boxes: IntArray


def key_word(seed: int, index: int, view: int, stream: str) -> int:
    """Key of 64 bits for (plan seed, dataset index, view) and a stream: "torch", "random", "numpy", "mix" or "draw"."""
    return xxhash.xxh3_64_intdigest(struct.pack("<QQQ", seed, index, view) + stream.encode())


def draw_words(seed: int, indices: IntArray, view: int) -> npt.NDArray[np.uint64]:
    """[B] u64 key words by which the ids of rows are drawn, from their dataset indices [B]."""
    return np.array([key_word(seed, index, view, "draw") for index in indices.tolist()], dtype=np.uint64)


def partners_of_group(seed: int, group: int, view: int, rows: int) -> IntArray:
    """Partners [min(64, rows - 64 group)] of the positions of one mixing group: an involution.

    Positions are sorted by their keys, and neighbours in that order are partners. An odd one out is its own partner.
    """
    start = group * GROUP
    members = min(GROUP, rows - start)
    keys = [
        xxhash.xxh3_64_intdigest(struct.pack("<QQQQ", seed, group, view, start + member) + b"pair")
        for member in range(members)
    ]
    ranking = np.argsort(np.array(keys, dtype=np.uint64), kind="stable")
    partners = np.arange(members, dtype=np.int64)
    pairs = ranking[: members // 2 * 2].reshape(-1, 2)
    partners[pairs[:, 0]], partners[pairs[:, 1]] = pairs[:, 1], pairs[:, 0]
    return partners + start


def partners_of(plan: ViewPlan, positions: IntArray, view: int, rows: int) -> IntArray:
    """Partners [B] of `positions` [B] in a data set of `rows` samples; without mixing, each is its own."""
    if plan.mix == "none":
        return positions.copy()
    partners = np.empty_like(positions)
    groups = positions // GROUP
    for group in np.unique(groups):
        mask = groups == group
        group_partners = partners_of_group(plan.seed, int(group), view, rows)
        partners[mask] = group_partners[positions[mask] - group * GROUP]
    return partners


def without_answer(plan: ViewPlan, struck: IntArray, view: int, rows: int) -> IntArray:
    """Ascending positions that have no answer in a view where the samples at `struck` [S] have none: their own, and
    those of their partners."""
    return np.union1d(struck, partners_of(plan, struck, view, rows))


def mixing_of(plan: ViewPlan, positions: IntArray, view: int, rows: int, size: tuple[int, int]) -> Mixing:
    """Partners, lambdas and boxes of `positions` [B] for views of `size` (height, width) pixels.

    mixup: Zhang et al. 2018, lambda ~ Beta(alpha, alpha). CutMix: Yun et al. 2019, a box of area 1 - lambda around a
    uniform centre, cut at the border, lambda then corrected to the area that was pasted.
    """
    partners = partners_of(plan, positions, view, rows)
    lam = np.ones(len(positions))
    boxes = np.zeros((len(positions), 4), dtype=np.int64)
    if plan.mix == "none":
        return Mixing(partners, lam, boxes)
    # MT19937, whose stream numpy has frozen; one a call, since threads that share one draw each other's numbers
    generator = np.random.RandomState(0)
    for row, (position, partner) in enumerate(zip(positions.tolist(), partners.tolist(), strict=True)):
        if position != partner:
            lam[row], boxes[row] = _draw_mix(generator, plan, min(position, partner), view, size)
    return Mixing(partners, lam, boxes)


def _draw_mix(
    generator: np.random.RandomState, plan: ViewPlan, pair: int, view: int, size: tuple[int, int]
) -> tuple[float, tuple[int, int, int, int]]:
    word = key_word(plan.seed, pair, view, "mix")
    generator.seed([word & 0xFFFFFFFF, word >> 32])
    lam = round(float(generator.beta(plan.mix_alpha, plan.mix_alpha)) / LAMBDA_STEP) * LAMBDA_STEP
    if plan.mix == "mixup":
        return lam, (0, 0, 0, 0)
    height, width = size
    centre_x, centre_y = int(generator.randint(width)), int(generator.randint(height))
    reach = 0.5 * float(np.sqrt(1.0 - lam))
    half_x, half_y = int(reach * width), int(reach * height)
    x1, x2 = max(centre_x - half_x, 0), min(centre_x + half_x, width)
    y1, y2 = max(centre_y - half_y, 0), min(centre_y + half_y, height)
    return 1.0 - (x2 - x1) * (y2 - y1) / (width * height), (x1, y1, x2, y2)


def whole_pairs(plan: ViewPlan, positions: IntArray, view: int, rows: int) -> tuple[IntArray, IntArray]:
    """Pairs [P, 2] of mixing partners that are both among `positions`, and the rest [R] of them."""
    if plan.mix == "none":
        return np.empty((0, 2), dtype=np.int64), positions
    partners = partners_of(plan, positions, view, rows)
    mask = np.isin(partners, positions) & (partners != positions)
    leaders = mask & (positions < partners)
    return np.stack([positions[leaders], partners[leaders]], axis=1), positions[~mask]
