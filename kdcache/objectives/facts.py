"""Facts state the needs of an objective, how exact it is, and its published defaults; they are shown and checked."""

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
ANY_LOGITS = "exact: logits are not asked"
POOLED_MAPS = "approximate: the pooled maps are compared"


@dataclass(frozen=True)
class Facts:
    """Facts of one objective.

    full, topk: exactness on such stores. mixing: how it treats mixed pictures; in "mixed answer" the teacher answers to
    the mixed picture. tails: the tails that it can take. w_ce, w_kd: default weights of the hard labels and of the
    objective's own term. teacher: true where it needs a store. needs: other things that the store must keep, with which
    the term is made. keeps: what each store must keep beside its taps, which the term finds in its `Sizes`. sees: the
    student's outputs that it needs beside logits; with "taps" it names layers of the student and of the stores, see
    `tap_pairs`, and is made with their `Sizes`. pooled: exactness on a tap that was pooled. asks_at: the settings that
    hold the temperatures at which it asks the stores. best: the setting that counts the best classes that a top-k store
    must keep, empty where any k does. ranks: true where it takes the teacher's classes by their order. zeros: true
    where it is finite for a class whose teacher probability is 0 (masked classes). couples: true where the rows of a
    batch meet in it. remembers: true where it follows one loss from step to step, and so cannot be asked for each
    teacher apart. by_kl: true where KL(p_T || q) and the hard label's probability at `asks_at`, or no soft label, are
    all that it asks of a teacher, so that draws will do. sketch: true where it asks at temperatures that nobody knows
    before, or for moments of the tail. by_total: true where it follows the share of the whole training that is done.
    """

    topk: str
    full: str = "exact"
    mixing: str = PICTURE
    tails: tuple[Tail, ...] = ALL_TAILS
    w_ce: float = 0.1
    w_kd: float = 0.9
    teacher: bool = True
    needs: tuple[Literal["head"], ...] = ()
    keeps: tuple[Literal["features", "head"], ...] = ()
    sees: tuple[Literal["features", "taps"], ...] = ()
    pooled: str = ""
    asks_at: tuple[str, ...] = ("temperature",)
    best: str = ""
    ranks: bool = False
    zeros: bool = True
    couples: bool = False
    remembers: bool = False
    by_kl: bool = False
    sketch: bool = False
    by_total: bool = False

    @property
    def gathers(self) -> bool:
        """True where each of several processes must compute it on all rows of the batch to get its loss."""
        return self.couples or self.remembers

    @property
    def by_labels(self) -> bool:
        """True where it learns from rows with a hard label alone."""
        return not self.teacher or self.mixing == BOTH_LABELS

    def record(self) -> dict[str, Any]:
        """Field : value, as `kdcache objectives` shows them."""
        needs = ["store" if self.teacher else "no teacher", *self.needs]
        needs += [f"{name} of each store" for name in self.keeps]
        needs += [f"{self.best} classes"] if self.best else []
        needs += [] if self.zeros else ["no masked classes"]
        needs += [f"{name} of student and store" if name == "taps" else f"the student's {name}" for name in self.sees]
        return {
            "needs": needs,
            "asks_at": list(self.asks_at),
            "on_full": self.full,
            "on_top_k": self.topk,
            **({"on_pooled_taps": self.pooled} if self.pooled else {}),
            "under_mixing": self.mixing,
        }
