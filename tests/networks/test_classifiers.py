"""Classifiers of a teacher: those that do more than weight and bias, and how they are called."""

import pytest
import torch
from torch import Tensor, nn

from tests.kits.views import digits, teacher_of, trained_network


def images(rows: int = 40) -> Tensor:
    data = digits(rows)
    return torch.stack([data.samples[index][0] for index in range(rows)])


class LoRA(nn.Linear):
    """A linear layer with an addition of low rank."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.3 * x[:, :1]


class Cosine(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 20 * nn.functional.linear(nn.functional.normalize(x), nn.functional.normalize(self.weight))


def _with_head(kind: str) -> nn.Module:
    network = trained_network()
    head = network[-1]
    if kind == "hook":
        head.register_forward_hook(lambda module, inputs, output: output / 3)
    elif kind == "own forward":
        linear = head.forward
        head.forward = lambda x: linear(x) / 3
    elif kind == "weight norm":
        nn.utils.parametrizations.weight_norm(head)
    else:
        network[-1] = (LoRA if kind == "LoRA" else Cosine)(head.in_features, head.out_features)
        network[-1].load_state_dict(head.state_dict())
    return network


@pytest.mark.parametrize("kind", ["LoRA", "cosine", "hook", "own forward", "weight norm"])
def test_a_classifier_that_does_more_than_weight_and_bias_keeps_it_in_low_precision(kind: str) -> None:
    exact = teacher_of(_with_head(kind))
    half = teacher_of(_with_head(kind), precision="bfloat16")
    logits = half.answer(half.preparation(images())).logits
    expected = exact.answer(exact.preparation(images())).logits
    assert float((logits - expected).square().mean().sqrt()) < 0.02 * float(expected.std())
    is_plain = kind == "weight norm"
    assert torch.equal(logits, logits.bfloat16().float()) != is_plain  # in f32 where weight and bias are all there is


def test_a_classifier_that_is_called_by_keyword() -> None:
    class ByKeyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            network = trained_network()
            self.body, self.head = network[:-1], network[-1]

        def forward(self, x: Tensor) -> Tensor:
            return self.head(input=self.body(x))  # type: ignore[no-any-return]

    for precision in ("float32", "bfloat16"):
        plain, teacher = teacher_of(precision=precision), teacher_of(ByKeyword(), precision=precision)
        expected, actual = (t.answer(t.preparation(images())) for t in (plain, teacher))
        assert torch.equal(actual.logits, expected.logits)
        assert actual.features is not None
        assert expected.features is not None
        assert torch.equal(actual.features, expected.features)
