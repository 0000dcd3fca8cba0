"""Selection switches the terms of a joint objective on and off, by a policy whose reward is the drop of a loss."""

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from kdcache.errors import InvalidInputError

STEPS, RATE = 10, 0.1  # at .5 a hundred rewards of noise alone decide half of the terms, at .1 none
MEMORY = 0.1  # by which running means follow what is new
BOUND = 3.0  # of preferences: every term stays on, and off, in one of 21 choices at least

Numbers = npt.NDArray[np.float64]


class Selection(nn.Module):
    """A policy over K terms: for `steps` steps at a time term k is on (a_k = 1) with probability p_k = sigmoid(t_k).

    After Wang et al. 2022 (knowledge selection by actor and critic; of their text the abstract was at hand). The actor
    is REINFORCE: t_k += rate A (a_k - p_k), t_k cut to -3..3, from t_k = 0. The reward r is the drop of a loss on
    held-out rows over the steps of a choice, the critic b the running mean of rewards, and A = (r - b) / s with s the
    running mean of |r - b|, so that the rate has no unit. Running means follow by a tenth. rate 0: fair coins for ever.

    A choice is drawn by the seed and its number, so that no generator is kept. All else lies in `state_dict`.
    """

    def __init__(self, names: Sequence[str], *, steps: int = STEPS, rate: float = RATE, seed: int = 0) -> None:
        super().__init__()
        self.names, self.steps, self.rate, self.seed = tuple(names), steps, rate, seed
        self.preferences: Numbers = np.zeros(len(self.names))
        self.chosen = np.ones(len(self.names), dtype=bool)
        self.loss: float | None = None  # at the last choice
        self.baseline: float | None = None
        self.spread: float | None = None
        self.choices = self.steps_done = 0
        self._counts = np.zeros(len(self.names) + 1, dtype=np.int64)  # steps of each term, and all, since `take_shares`

    @property
    def probabilities(self) -> Numbers:
        """[K] the probability that each term is on."""
        return np.asarray(1.0 / (1.0 + np.exp(-self.preferences)))

    def begin_step(self, loss: Callable[[], float]) -> None:
        """Count a step that begins. At the first of every `steps`, learn from the `loss` on held-out rows, which is
        asked for then alone, and choose anew. Raises InvalidInputError for a loss that is not finite."""
        if self.steps_done % self.steps == 0:
            self._choose(loss())
        self.steps_done += 1
        self._counts += [*self.chosen, True]

    def take_shares(self) -> dict[str, float]:
        """The share of steps in which each term was on, by its name, since this was last asked."""
        counts, self._counts = self._counts, np.zeros_like(self._counts)
        return dict(zip(self.names, (counts[:-1] / max(int(counts[-1]), 1)).tolist(), strict=True))

    def _choose(self, loss: float) -> None:
        if not isfinite(loss):
            raise InvalidInputError(
                f"the loss on the held-out rows that terms are selected by is {loss}; lower the learning rate, or "
                "train without selection"
            )
        if self.loss is not None:
            self.learn(self.loss - loss)
        self.loss = loss
        draws = np.random.default_rng((self.seed, self.choices)).random(len(self.names))
        self.chosen = draws < self.probabilities
        self.choices += 1

    def learn(self, reward: float) -> None:
        """Learn from the reward of the last choice. The first one sets the baseline, and the second the spread."""
        if self.baseline is None:
            self.baseline = reward
            return
        advantage = reward - self.baseline
        self.spread = abs(advantage) if self.spread is None else _follow(self.spread, abs(advantage))
        if self.spread > 0:
            gradient = policy_gradient(self.preferences, self.chosen, advantage / self.spread)
            self.preferences = np.clip(self.preferences + self.rate * gradient, -BOUND, BOUND)
        self.baseline = _follow(self.baseline, reward)

    def get_extra_state(self) -> dict[str, Any]:
        return {
            "preferences": self.preferences.tolist(), "chosen": self.chosen.tolist(), "loss": self.loss,
            "baseline": self.baseline, "spread": self.spread, "choices": self.choices, "steps_done": self.steps_done,
            "counts": self._counts.tolist(),
        }  # fmt: skip

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.preferences, self.chosen = (
            np.array(state["preferences"], dtype=float),
            np.array(state["chosen"], dtype=bool),
        )
        self.loss, self.baseline, self.spread = state["loss"], state["baseline"], state["spread"]
        self.choices, self.steps_done = state["choices"], state["steps_done"]
        self._counts = np.array(state["counts"], dtype=np.int64)


def policy_gradient(preferences: Numbers, chosen: npt.NDArray[np.bool_], advantage: float) -> Numbers:
    """[K] the gradient of advantage log P(chosen) by preferences [K], chosen [K] drawn by their sigmoids (Williams
    1992)."""
    return np.asarray(advantage * (chosen - 1.0 / (1.0 + np.exp(-preferences))))


def _follow(mean: float, value: float) -> float:
    return mean + MEMORY * (value - mean)
