"""teachers: networks by spec, weights that are tensors and fit, a digest of every bit, answers in f32."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from kdcache.errors import InvalidInputError
from kdcache.networks.answer import Answer
from kdcache.networks.build import build_network
from kdcache.networks.heads import find_head
from kdcache.networks.preparation import IMAGENET_MEAN, IMAGENET_STD, Preparation, default_normalisation
from kdcache.networks.small import convnet
from kdcache.networks.teacher import Teacher
from kdcache.networks.weights import load_weights, read_state, weights_digest
from tests.kits.views import digits, random_teacher, teacher_of, trained_network


def small() -> nn.Sequential:
    return convnet(width=4, depth=1)


def images(rows: int = 40) -> Tensor:
    data = digits(rows)
    return torch.stack([data.samples[index][0] for index in range(rows)])


def both(answer: Answer) -> tuple[Tensor, Tensor | None]:
    return answer.logits, answer.features


def test_the_data_set_s_classes_are_passed_where_they_fit() -> None:
    found = build_network("kdcache.networks:convnet", {"width": 2}, 7, "teacher")
    assert found[-1].out_features == 7  # type: ignore[index]
    found = build_network("kdcache.networks:convnet", {"width": 2, "num_classes": 3}, 7, "teacher")
    assert found[-1].out_features == 3  # type: ignore[index]
    found = build_network("torchvision:squeezenet1_1", {}, 7, "teacher")
    assert find_head(found) is None
    fixed = build_network("torch.nn:Linear", {"in_features": 2, "out_features": 5}, 7, "teacher")
    assert isinstance(fixed, nn.Linear)


@pytest.mark.parametrize(
    ("spec", "arguments", "message"),
    [
        ("resnet", {}, "teacher 'resnet' names no network; write torchvision:NAME"),
        ("torchvision:no_such_net", {}, "teacher torchvision:no_such_net with {} cannot be built"),
        ("timm:no_such_net", {}, "teacher timm:no_such_net with {} cannot be built"),
        ("torchvision:resnet18", {"weights": "NO_SUCH"}, "check its name and arguments"),
        ("torchvision:resnet18", {"sise": 3}, "cannot be built.*sise"),
        ("kdcache.networks:convnet", {"heigth": 3}, "takes other arguments.*it has width, depth"),
        ("pathlib:Path", {}, "returned a PosixPath; it must return a torch.nn.Module"),
    ],
)
def test_what_cannot_be_built_says_why(spec: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        build_network(spec, arguments, 10, "teacher")


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "state_dict.pth", "model.pth"])
def test_weights_come_back_from_every_kind_of_file(tmp_path: Path, name: str) -> None:
    network, other, path = trained_network(), convnet(width=8), tmp_path / name
    state = network.state_dict()
    if name.endswith(".safetensors"):
        save_file(state, path)
    else:
        torch.save({path.stem: state, "epoch": 3} if name.endswith(".pth") else state, path)
    assert weights_digest(other) != weights_digest(network)
    load_weights(other, path)
    assert weights_digest(other) == weights_digest(network)


def test_weights_that_do_not_fit_say_what_is_wrong(tmp_path: Path) -> None:
    network = small()
    state = network.state_dict()
    del state["0.weight"]
    state["extra"], state["another"] = torch.zeros(1), torch.zeros(1)
    state["8.weight" if "8.weight" in state else next(k for k in state if k.endswith("bias"))] = torch.zeros(3, 3)
    save_file(state, tmp_path / "a.safetensors")
    before = weights_digest(network)
    with pytest.raises(
        InvalidInputError,
        match=r"1 missing \(first: 0\.weight\), 2 unknown \(first: another\), 1 of another shape \(first: .*check --",
    ):
        load_weights(network, tmp_path / "a.safetensors")
    assert weights_digest(network) == before


def test_pickled_code_is_refused_and_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"state_dict": {"weight": Trap()}}, tmp_path / "a.pt")
    with pytest.raises(InvalidInputError, match=r"a\.pt are refused: it holds more than tensors"):
        read_state(tmp_path / "a.pt")
    torch.save(small(), tmp_path / "b.pt")
    with pytest.raises(InvalidInputError, match=r"b\.pt are refused"):
        read_state(tmp_path / "b.pt")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
@pytest.mark.parametrize("contents", [b"", b"hello", b"\0" * 64])
def test_a_file_that_is_no_weights_is_refused(tmp_path: Path, name: str, contents: bytes) -> None:
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(InvalidInputError, match=rf"weights .*{name} (cannot be read|are refused|hold no)"):
        read_state(tmp_path / name)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    save_file(small().state_dict(), tmp_path / "a.safetensors")
    torch.save(small().state_dict(), tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(InvalidInputError, match="cannot be read"):
            read_state(tmp_path / name)


def test_what_is_no_plain_state_dict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="there is no such file"):
        read_state(tmp_path / "none.pt")
    for value in ({"weight": 3}, [torch.zeros(1)], {"state_dict": {"model": {"deep": 1}}}):
        torch.save(value, tmp_path / "a.pt")
        with pytest.raises(InvalidInputError, match="hold no plain state dict of tensors"):
            read_state(tmp_path / "a.pt")


def test_the_digest_is_of_every_bit_and_of_nothing_else() -> None:
    network = small()
    before = weights_digest(network)
    assert weights_digest(network.to(memory_format=torch.channels_last)) == before
    for name, value in network.state_dict().items():
        flat = value.reshape(-1).view(torch.uint8) if value.is_contiguous() else None
        if flat is not None:
            flat[-1] ^= 1
            assert weights_digest(network) != before, name
            flat[-1] ^= 1
    assert weights_digest(network) == before
    assert weights_digest(small().to(torch.float64)) != weights_digest(small())
    assert weights_digest(nn.Sequential(small())) != before


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_views_are_normalised(channels: int) -> None:
    mean, std = default_normalisation(channels)
    assert (mean, std) == ((IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,) * channels,) * 2)
    views = torch.randint(0, 256, (2, channels, 5, 6), dtype=torch.uint8)
    prepared = Preparation(mean, std, "cpu")(views)
    expected = (views / 255.0 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert prepared.dtype == torch.float32
    assert torch.allclose(prepared, expected, atol=1e-6)
    assert prepared.is_contiguous(memory_format=torch.channels_last)


def test_float_views_pass_unchanged() -> None:
    views = torch.randn(2, 3, 4, 4)
    assert torch.equal(Preparation((), (), "cpu")(views), views)


def test_float_views_are_normalised_by_the_mean_and_std_that_are_given() -> None:
    views = torch.rand(2, 3, 4, 4)
    prepared = Preparation((0.1, 0.2, 0.3), (0.5, 0.25, 2.0), "cpu")(views)
    expected = (views - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([0.5, 0.25, 2.0])[:, None, None]
    torch.testing.assert_close(prepared, expected)
    assert prepared.is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(InvalidInputError, match="views have 3 channels, mean and std have 1"):
        Preparation((0.1,), (0.2,), "cpu")(views)


def test_channels_that_do_not_fit_the_mean_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"views have 1 channels, mean and std have 3; set --mean and --std"):
        Preparation((0.5,) * 3, (0.5,) * 3, "cpu")(images(2))


def test_a_teacher_is_frozen_and_in_eval_mode() -> None:
    network = convnet(width=4, dropout=0.9).train()
    teacher, before = teacher_of(network), weights_digest(network)
    prepared = teacher.preparation(images())
    assert torch.equal(teacher.answer(prepared).logits, teacher.answer(prepared).logits)
    assert not any(p.requires_grad for p in teacher.network.parameters())
    assert weights_digest(teacher.network) == before  # batchnorm has learned nothing


def test_features_are_what_the_head_sees() -> None:
    teacher = teacher_of()
    logits, features = both(teacher.answer(teacher.preparation(images())))
    assert features is not None
    head = teacher.head_arrays()
    assert (head["weight"].shape, head["bias"].shape, head["weight"].dtype) == ((10, 16), (10,), np.float32)
    assert np.allclose(features.numpy() @ head["weight"].T + head["bias"], logits.numpy(), atol=1e-4)
    body = teacher.network[:-1]  # type: ignore[index]
    assert torch.allclose(body(teacher.preparation(images())), features, atol=1e-6)


def test_a_head_without_bias_has_zeros() -> None:
    teacher = teacher_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=False)))
    assert teacher.head_arrays()["bias"].tolist() == [0, 0, 0]


def test_a_network_without_a_linear_head_has_no_features() -> None:
    teacher = teacher_of(nn.Sequential(nn.Conv2d(1, 5, 8), nn.Flatten()))
    logits, features = both(teacher.answer(teacher.preparation(images())))
    assert (tuple(logits.shape), features) == ((40, 5), None)
    with pytest.raises(InvalidInputError, match=r"does not end in a linear layer.*--keep"):
        teacher.head_arrays()


def test_under_autocast_the_head_stays_f32() -> None:
    exact, features = both(teacher_of().answer(teacher_of().preparation(images())))
    half = teacher_of(precision="bfloat16")
    logits, rounded = both(half.answer(half.preparation(images())))
    assert features is not None
    assert rounded is not None
    assert logits.dtype == torch.float32
    assert torch.equal(rounded, rounded.bfloat16().float())  # the body did run in bfloat16
    assert not torch.equal(logits, logits.bfloat16().float())  # and the head did not
    assert half.head is not None
    assert half.head.bias is not None
    expected = nn.functional.linear(rounded, half.head.weight, half.head.bias)
    assert torch.allclose(logits, expected, atol=1e-5)
    assert 0 < float((logits - exact).abs().max()) < 0.5
    assert half.identity("net", {}, 10).precision == "bfloat16"


@pytest.mark.parametrize(
    ("network", "shape"),
    [(nn.Conv2d(1, 3, 3), r"\[4, 3, 6, 6\]"), (nn.LSTM(64, 2), "tuple of 2"), (nn.Flatten(0), r"\[256\]")],
)
def test_an_answer_that_is_no_logits_is_refused(network: nn.Module, shape: str) -> None:
    teacher = teacher_of(nn.Sequential(nn.Flatten(), network) if isinstance(network, nn.LSTM) else network)
    with pytest.raises(InvalidInputError, match=rf"answered {shape}; it must answer logits \[rows, classes\]"):
        teacher.answer_at_once(teacher.preparation(images(4)))


def test_the_identity_says_all_that_changes_answers() -> None:
    def identity_of(**options: Any) -> Any:
        return random_teacher(**options).identity("/home/me/net.py:make", {"width": 4}, 10)

    base = identity_of()
    assert (base.name, base.mode, base.mean, base.std) == ("net.py:make", "eval", (0.5,), (0.5,))
    assert identity_of() == base
    changed = Preparation((0.4,), (0.5,), "cpu")
    for options in ({"seed": 2}, {"precision": "bfloat16"}, {"masked_classes": (3,)}, {"preparation": changed}):
        assert identity_of(**options) != base
    assert Teacher(small(), preparation=changed).identity("n:m", {}, 10).mean == (0.4,)
