"""Asking under a budget: a student hands some tokens to its teacher, by what a head on it expects of that.

Shape letters: R tokens that count, D width of the student's hidden state, F numbers made of one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from kdcache.errors import InvalidInputError
from kdcache.networks.heads import find_head
from kdcache.pipelines.studies.peers import decisions, network_of
from kdcache.views.data import Data

AT_ONCE = 256  # texts of a forward
AXES = 48  # of hidden states that are wider
PENALTY = 1e-3  # of the head's squared weights, by the number of its rows

Floats = npt.NDArray[np.float64]
Truths = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Answers:
    """Answers to the next token of R tokens: a student's hidden state [R, D] before its head, the entropy [R] of its
    answer in nats, and whether its top class and the teacher's are right [R]."""

    hidden: Floats
    entropy: Floats
    right: Truths
    teacher_right: Truths

    @property
    def gain(self) -> Floats:
        """The gain of asking [R]: 1, 0 or -1 right answers."""
        return self.teacher_right.astype(float) - self.right


def answers_of(run: str, store: str, data: Data) -> Answers:
    """The answers of a run's network to texts, beside those of the store of these texts; the teacher is not loaded."""
    network = network_of(run, data.classes)
    if (head := find_head(network)) is None:
        raise InvalidInputError(f"the student of {run} has no linear layer, before which a head could look")
    tokens = torch.stack([data.samples[text][0] for text in range(len(data.ids))]).long()
    hidden, entropy, top = [], [], []
    for texts in torch.split(tokens, AT_ONCE):
        with torch.inference_mode(), inputs_of(head) as states:
            log_q = network(texts).log_softmax(dim=-1).flatten(0, 1)
        hidden.append(states[-1].flatten(0, -2).double().numpy())
        entropy.append(-(log_q.exp() * log_q).sum(dim=-1).double().numpy())
        top.append(log_q.argmax(dim=-1).numpy())
    counts = data.labels >= 0
    labels = data.labels[counts]
    right, teacher_right = (classes[counts] == labels for classes in (np.concatenate(top), decisions(store)))
    return Answers(np.concatenate(hidden)[counts], np.concatenate(entropy)[counts], right, teacher_right)


@contextmanager
def inputs_of(layer: nn.Linear) -> Iterator[list[Tensor]]:
    """While open, the inputs [..., D] of a layer, one a call."""
    inputs: list[Tensor] = []

    def note(module: nn.Module, given: tuple[Any, ...]) -> None:
        inputs.append(given[0].detach())

    handle = layer.register_forward_pre_hook(note)
    try:
        yield inputs
    finally:
        handle.remove()


@dataclass(frozen=True)
class AskHead:
    """A head that expects of a hidden state what asking gains: a weight [F] for each product of two of its numbers,
    each standardised by `mean` and `scale` [D]. Of a wide state the numbers are those along `axes` [D, AXES]."""

    mean: Floats
    scale: Floats
    axes: Floats | None
    weights: Floats

    @classmethod
    def fitted(cls, held_out: Answers) -> "AskHead":
        """The head by ridge regression of the gains of held-out tokens; axes are the principal ones."""
        mean, scale = held_out.hidden.mean(axis=0), held_out.hidden.std(axis=0) + 1e-6
        states = (held_out.hidden - mean) / scale
        axes = np.linalg.eigh(states.T @ states)[1][:, -AXES:] if states.shape[1] > AXES else None
        numbers = cls(mean, scale, axes, np.zeros(0))._numbers(held_out.hidden)
        matrix = numbers.T @ numbers + PENALTY * len(numbers) * np.eye(numbers.shape[1])
        weights = np.linalg.solve(matrix, numbers.T @ held_out.gain)
        return cls(mean, scale, axes, np.asarray(weights, dtype=np.float64))

    def expected(self, hidden: Floats) -> Floats:
        """The expected gains [R] of hidden states [R, D]."""
        return np.asarray(self._numbers(hidden) @ self.weights)

    def _numbers(self, hidden: Floats) -> Floats:
        """The products [R, F] of hidden states [R, D], and the numbers themselves."""
        states = (hidden - self.mean) / self.scale
        states = states if self.axes is None else states @ self.axes
        states = np.concatenate([np.ones((len(states), 1)), states], axis=1)
        one, other = np.triu_indices(states.shape[1])
        return np.asarray(states[:, one] * states[:, other])


def accuracy_at(answers: Answers, score: Floats, budget: float) -> float:
    """The accuracy where the share `budget` of the tokens, those of the highest scores [R], is the teacher's answer."""
    asked = np.argsort(-score, kind="stable")[: round(budget * len(score))]
    return float(answers.right.mean() + answers.gain[asked].sum() / len(score))
