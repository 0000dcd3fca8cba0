"""What an objective says of itself: what it needs, how exact it is, its published defaults. Shown and checked."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from kdcache.labels.soft_labels import Tail

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]

ALL_TAILS: tuple[Tail, ...] = ("uniform", "class-mean", "ghost", "none")
FULL_SUPPORT: tuple[Tail, ...] = ("uniform", "class-mean", "ghost")  # infinite where the teacher's probability is 0
BY_CLASS: tuple[Tail, ...] = ("uniform", "class-mean", "none")
BY_LOGIT: tuple[Tail, ...] = ("uniform", "class-mean")

PICTURE = "mixed answer"
BOTH_LABELS = "both labels by lambda"
BOUNDED = "head exact, tail by sketch (ghost: bound)"
SKETCHED = "head exact, tail by sketch"


@dataclass(frozen=True)
class Facts:
    """Facts of one objective.

    full, topk: exactness on such stores. mixing: what it does with mixed pictures: "mixed answer" is the teacher's to
    the mixed one. tails: which it can take. w_ce,
    w_kd: default weights of the hard labels and of the objective's own term. teacher: whether it needs a store. needs:
    what else a store must keep. zeros: whether it is finite where the teacher's probability of a class is 0 (masked
    classes). couples: whether rows of a batch meet in it. remembers: whether it follows one loss from step to step, so
    that it cannot be asked for each teacher apart.
    """

    topk: str
    full: str = "exact"
    mixing: str = PICTURE
    tails: tuple[Tail, ...] = ALL_TAILS
    w_ce: float = 0.1
    w_kd: float = 0.9
    teacher: bool = True
    needs: tuple[Literal["head"], ...] = ()
    zeros: bool = True
    couples: bool = False
    remembers: bool = False

    @property
    def gathers(self) -> bool:
        """Whether several processes compute it on the whole batch, each on all rows: nothing less gives its loss."""
        return self.couples or self.remembers

    def record(self) -> dict[str, Any]:
        """Field : value for `kdcache objectives`."""
        needs = ["store" if self.teacher else "no teacher", *self.needs]
        return {"needs": needs, "on full": self.full, "on top-k": self.topk, "under mixing": self.mixing}
