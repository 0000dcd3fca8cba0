"""Masked generative distillation (MGD) lets masked maps of the student generate the teacher's whole ones."""

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from kdcache.base.tap_names import placed_shape
from kdcache.objectives.batch import Batch
from kdcache.objectives.facts import ANY_LOGITS, POOLED_MAPS, Facts
from kdcache.objectives.maps import of_one_size, placed
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.pair_losses import loss_of_pairs
from kdcache.objectives.tap_pairs import Sizes, TapPair, cannot_join, names_of, tap_pairs
from kdcache.objectives.targets import Targets

Ratio = Annotated[float, Field(ge=0, lt=1)]
ODD = (-7046029254386353131, -4658895280553007687, -7723592293110705685)  # multipliers of splitmix64, as signed numbers


class MGD(nn.Module):
    """The objective is `mean (G(M a(F_s)) - F_t)^2` over rows, channels and places: a a learned 1 x 1 convolution to
    the teacher's channels, M a mask of places, each 0 with probability `ratio`, G a learned 3 x 3 convolution, ReLU and
    another; several layers add up.

    Yang et al. 2022, equations 1 to 4, ratio .5. The paper sums over channels and places, times 7e-5 for
    classification; w_kd 1.75 is as much on the last map of its ResNet, 512 x 7 x 7. Masks are drawn anew in each step
    while the objective is in training mode, by a key of the run, the row's position, view, epoch and step: a run goes
    on with equal masks after a stop, and however many processes share a batch. In eval mode nothing is masked.

    Maps [B, C, H, W] of two sizes are pooled to the smaller one. Tokens, vectors and maps of one place are refused: the
    convolutions need neighbours. Exact on maps as they are; on a pooled tap the pooled maps are compared. The logits
    are not asked. Several stores: the weighted mean over them, each with its own a and G.

    Examples:
        >>> make_objective("mgd", sizes=sizes)(outputs, batch).ndim  # a number
        0
    """

    facts: ClassVar[Facts] = Facts(
        topk=ANY_LOGITS, pooled=POOLED_MAPS, w_ce=1.0, w_kd=1.75, sees=("taps",), asks_at=(), by_kl=True
    )
    key: Tensor

    def __init__(self, student_tap: str = "", teacher_tap: str = "", ratio: Ratio = 0.5, *, sizes: Sizes) -> None:
        super().__init__()
        self.ratio = ratio
        self.pairs = tap_pairs(sizes, student_tap, teacher_tap, default="last map", name="mgd")
        pairs = [pair for of_store in self.pairs for pair in of_store]
        for pair in pairs:
            _require_maps(pair)
        self.student_taps, self.teacher_taps = names_of(self.pairs)
        self.shares = sizes.shares
        widths = [(placed_shape(pair.student_shape)[0], placed_shape(pair.teacher_shape)[0]) for pair in pairs]
        self.aligners = nn.ModuleList(nn.Conv2d(width, channels, 1) for width, channels in widths)
        self.generators = nn.ModuleList(_generator(channels) for _, channels in widths)
        self.register_buffer("key", torch.randint(1 << 62, ()))

    def forward(self, outputs: Outputs, targets: Targets, batch: Batch) -> Tensor:
        def loss(index: int, student: Tensor, teacher: Tensor) -> Tensor:
            student_map, teacher_map = of_one_size(placed(student), placed(teacher))
            aligned = self.aligners[index](student_map)
            if self.training:
                aligned = aligned * self.masks(batch, index, (aligned.shape[2], aligned.shape[3]))
            value: Tensor = (self.generators[index](aligned) - teacher_map).square().mean()
            return value

        return loss_of_pairs(loss, self.pairs, self.shares, outputs, batch)

    def masks(self, batch: Batch, index: int, size: tuple[int, int]) -> Tensor:
        """The masks [B, 1, H, W] of a pair in a step, bool: a pure function of key, index, and the batch's positions,
        view, epoch and step."""
        device = self.key.device
        rows = self.key
        for number in (index, batch.view, batch.epoch, batch.step):
            rows = _stirred(rows + number)
        rows = _stirred(rows + batch.positions.to(device))
        places = _stirred(rows[:, None] + torch.arange(size[0] * size[1], device=device))
        shares = (places >> 40 & 0xFFFFFF).float() / (1 << 24)  # uniform in [0, 1)
        return (shares >= self.ratio).reshape(-1, 1, *size)


def _stirred(numbers: Tensor) -> Tensor:
    """Numbers i64, each bit of which depends on all bits of the ones given: splitmix64 (Steele et al. 2014)."""
    numbers = numbers * ODD[0] + ODD[0]
    numbers = (numbers ^ (numbers >> 30 & 0x3FFFFFFFF)) * ODD[1]
    numbers = (numbers ^ (numbers >> 27 & 0x1FFFFFFFFF)) * ODD[2]
    return numbers ^ (numbers >> 31 & 0x1FFFFFFFF)


def _generator(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
    )


def _require_maps(pair: TapPair) -> None:
    shapes = (pair.student_shape, pair.teacher_shape)
    if any(len(shape) != 3 or placed_shape(shape)[1:] == (1, 1) for shape in shapes):
        raise cannot_join("mgd", pair, "it masks places of maps [C, H, W]; name layers that give maps")
