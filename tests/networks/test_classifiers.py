"""Classifiers of a teacher: those that do more than weight and bias, and how they are called."""

import pytest
import torch
import torchvision
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


class TwoHeads(nn.Module):
    """A body with two heads whose mean is the answer, as a distilled DeiT has them."""

    def __init__(self) -> None:
        super().__init__()
        network = trained_network()
        self.body, self.head, self.head_dist = network[:-1], network[-1], nn.Linear(network[-1].in_features, 10)

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        return torch.as_tensor((self.head(features) + self.head_dist(features)) / 2)


class HeadFirst(nn.Module):
    """A network that declares its head before its body, which ends in a linear layer of its own."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        network = trained_network()
        self.head = head
        self.body = nn.Sequential(*network[:-1], nn.Linear(16, 16), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.head(self.body(x)))


def _in_bfloat16(network: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        return torch.as_tensor(network.eval()(images))


def test_two_heads_answer_in_the_precision_asked_for_under_a_note() -> None:
    network = TwoHeads()
    expected = _in_bfloat16(network, teacher_of(network).preparation(images()))
    teacher = teacher_of(network, precision="bfloat16")
    prepared = teacher.preparation(images())
    for _ in range(2):
        logits = teacher.answer(prepared.clone()).logits
        assert torch.equal(logits, expected.float())
    assert "no linear layer's output is the teacher's answer" in teacher.notes[0]
    assert teacher_of(TwoHeads()).notes == ()


def test_squeezenet_answers_in_the_precision_asked_for_under_a_note() -> None:
    network = torchvision.models.squeezenet1_0(num_classes=10)
    teacher = teacher_of(network, precision="bfloat16", channels=3)
    logits = teacher.answer(torch.rand(2, 3, 64, 64)).logits
    assert torch.equal(logits, logits.bfloat16().float())
    assert "it may end in a convolution" in teacher.notes[0]


def test_a_head_that_is_declared_first_is_the_classifier_in_f32() -> None:
    for precision in ("float32", "bfloat16"):
        head = nn.Linear(16, 10)
        teacher = teacher_of(HeadFirst(head), precision=precision)
        answer = teacher.answer(teacher.preparation(images()))
        assert teacher.head is head
        assert answer.features is not None
        expected = nn.functional.linear(answer.features, head.weight, head.bias)
        assert torch.allclose(answer.logits, expected, atol=1e-5)
        assert teacher.notes == ()
    assert not torch.equal(answer.logits, answer.logits.bfloat16().float())
