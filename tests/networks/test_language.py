"""Networks of texts: causal, of the shapes they state, and their tied weights survive every file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kdcache.errors import InvalidInputError
from kdcache.networks import gpt, gru
from kdcache.networks.build import build_network
from kdcache.networks.heads import find_head
from kdcache.networks.weights import load_weights, read_state, weights_digest
from kdcache.pipelines.train.stage import train
from kdcache.training.run_folder import save_weights
from tests.kits.stages import student

CLASSES, WIDTH, TOKENS = 50, 16, 12
MAKERS: dict[str, Callable[..., Any]] = {
    "gpt": lambda **changes: gpt(CLASSES, width=WIDTH, depth=2, heads=2, sequence=TOKENS, **changes),
    "gru": lambda **changes: gru(CLASSES, width=WIDTH, depth=2, **changes),
}
PICTURES_AS_TEXTS = '''"""gpt over the pixels of digits as tokens of ten words, answering by its last token."""
from torch import nn

from kdcache.networks import gpt


class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.text = gpt(num_classes, width=8, depth=1, heads=2, sequence=64, dropout=0.1)

    def forward(self, images):
        return self.text((images.flatten(1) * 3).long().clamp(0, 9))[:, -1]
'''


def made(name: str, seed: int = 0, **changes: Any) -> nn.Module:
    torch.manual_seed(seed)
    network: nn.Module = MAKERS[name](**changes)
    return network


def texts(seed: int = 0) -> Tensor:
    return torch.randint(CLASSES, (3, TOKENS), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", MAKERS)
def test_every_token_is_answered_in_f32_and_in_the_same_way(name: str) -> None:
    network = made(name).eval()
    logits = network(texts())
    assert (logits.shape, logits.dtype) == ((3, TOKENS, CLASSES), torch.float32)
    assert torch.equal(network(texts().int()), logits)
    assert torch.equal(made(name).eval()(texts()), logits)
    assert network(texts()[:, :5]).shape == (3, 5, CLASSES)


@pytest.mark.parametrize("name", MAKERS)
def test_a_token_changes_no_answer_before_it(name: str) -> None:
    network = made(name).eval()
    before = network(texts())
    for place in range(TOKENS):
        changed = texts()
        changed[:, place] = (changed[:, place] + 1) % CLASSES
        difference = (network(changed) - before).abs().amax(dim=(0, 2))
        assert (difference[:place] == 0).all()
        assert (difference[place:] > 0).all()


@pytest.mark.parametrize("name", MAKERS)
def test_the_head_is_a_linear_layer_that_is_called_once_and_may_be_tied(name: str) -> None:
    for tied in (True, False):
        network = made(name, tied=tied)
        head = find_head(network)
        assert isinstance(head, nn.Linear)
        inputs: list[Tensor] = []
        head.register_forward_pre_hook(lambda _, values, inputs=inputs: inputs.append(values[0]))
        answer = network.eval()(texts())
        assert [hidden.shape for hidden in inputs] == [(3, TOKENS, WIDTH)]
        assert torch.equal(answer, inputs[0] @ head.weight.T)
        assert (head.weight is network.get_parameter("embedding.weight")) == tied
        assert len(list(network.parameters())) == len(list(made(name).parameters())) + (not tied)


def test_weights_begin_as_gpt_2_s() -> None:
    torch.manual_seed(0)
    parts = dict(gpt(500, width=256, depth=8, heads=4, sequence=64).named_parameters())
    for name, value in parts.items():
        wanted = 0.02 / 4 if name.endswith(("mixed.weight", "narrow.weight")) else 0.02
        if value.ndim == 2:
            assert float(value.detach().std()) == pytest.approx(wanted, rel=0.05), name
        elif name.endswith("bias"):
            assert not value.any(), name


@pytest.mark.parametrize("name", MAKERS)
def test_dropout_is_of_training_alone(name: str) -> None:
    network = made(name, dropout=0.5)
    assert not torch.equal(network(texts()), network(texts()))
    network.eval()
    assert torch.equal(network(texts()), network(texts()))


@pytest.mark.parametrize("name", MAKERS)
def test_it_learns_which_word_follows(name: str) -> None:
    network = made(name)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    ids = (torch.arange(8)[:, None] + 3 * torch.arange(TOKENS + 1)) % CLASSES
    for _ in range(120):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 2.0  # of log 50 = 3.9


def test_what_they_cannot_read_is_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match=r"width 10 and 4 heads; give a width that 4 divides"):
        gpt(CLASSES, width=10)
    with pytest.raises(InvalidInputError, match=r"built for 12 tokens and was asked about a text of 13; build it with"):
        made("gpt")(torch.zeros(1, 13, dtype=torch.int64))
    for name in MAKERS:
        for images in (torch.zeros(2, 1, 8, 8), torch.zeros(2, 5), torch.zeros(5, dtype=torch.int64)):
            with pytest.raises(InvalidInputError, match="give token ids"):
                made(name)(images)


def test_they_are_built_by_their_specs() -> None:
    for name in MAKERS:
        network = build_network(f"kdcache.networks:{name}", {"width": 8}, CLASSES, "student")
        assert network(texts()).shape == (3, TOKENS, CLASSES)
    with pytest.raises(InvalidInputError, match=r"10 and 4 heads"):
        build_network("kdcache.networks:gpt", {"width": 10}, CLASSES, "student")


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("tied", [True, False])
def test_weights_survive_a_file(tmp_path: Path, name: str, tied: bool) -> None:
    network, path = made(name, seed=1, tied=tied), tmp_path / "w.safetensors"
    save_weights(path, network)
    assert ("head.weight" in load_file(path)) != tied
    target = made(name, tied=tied)
    assert load_weights(target, path) == ()
    assert weights_digest(target) == weights_digest(network)
    assert (find_head(target).weight is target.get_parameter("embedding.weight")) == tied  # type: ignore[union-attr]
    assert torch.equal(target.eval()(texts()), network.eval()(texts()))


@pytest.mark.parametrize("absent", ["head.weight", "embedding.weight"])
@pytest.mark.parametrize("prefix", ["", "module.", "model."])
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_file_from_elsewhere_may_lack_one_of_two_names(tmp_path: Path, absent: str, prefix: str, suffix: str) -> None:
    network, path = made("gpt", seed=1), tmp_path / f"w.{suffix}"
    state = {prefix + name: value.clone() for name, value in network.state_dict().items() if name != absent}
    (save_file if suffix == "safetensors" else torch.save)(state, path)  # type: ignore[operator]
    target = made("gpt")
    load_weights(target, path)
    assert weights_digest(target) == weights_digest(network)
    with pytest.raises(InvalidInputError, match=rf"1 missing \(first: {absent}\)"):
        load_weights(made("gpt", tied=False), path)


class Named(nn.Module):
    """A language model by the names of transformers' GPT-2: all but the head lie under `transformer`."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.transformer = made("gpt", seed)
        self.lm_head = self.transformer.head
        del self.transformer.head


def test_a_file_of_the_part_beneath_the_head_fits_a_tied_network(tmp_path: Path) -> None:
    """As the hub's GPT-2, whose names lack the beginning that all but lm_head.weight have."""
    network, target = Named(1), Named(0)
    save_file(dict(network.transformer.state_dict()), tmp_path / "w.safetensors")
    (note,) = load_weights(target, tmp_path / "w.safetensors")
    assert "transformer. was put before all names" in note
    assert weights_digest(target) == weights_digest(network)
    assert target.lm_head.weight is target.transformer.get_parameter("embedding.weight")


def test_a_run_s_weights_of_a_tied_student_come_back(tmp_path: Path) -> None:
    """Trained, averaged, saved, gone on with, and loaded: by its weights file as by its checkpoint."""
    (tmp_path / "net.py").write_text(PICTURES_AS_TEXTS)
    spec = f"{tmp_path / 'net.py'}:Net"
    run = student(tmp_path / "run", student=spec, student_set={}, ema=0.5, epochs=1, schedule="constant")
    train(run)
    longer = train(run.model_copy(update={"epochs": 2}))
    whole = train(student(tmp_path / "whole", student=spec, student_set={}, ema=0.5, schedule="constant"))
    assert longer.loss == whole.loss
    path, digests = tmp_path / "run/weights/last.safetensors", set()
    state = read_state(path)
    assert "text.embedding.weight" in state
    assert "text.head.weight" not in state
    for seed in (0, 1):
        torch.manual_seed(seed)
        target = build_network(spec, {}, 10, "student")
        assert load_weights(target, path) == ()
        assert target.text.head.weight is target.text.embedding.weight  # type: ignore[union-attr]
        assert torch.equal(target.state_dict()["text.head.weight"], state["text.embedding.weight"])
        digests.add(weights_digest(target))
        save_weights(tmp_path / "again.safetensors", target)
        assert load_file(tmp_path / "again.safetensors").keys() == state.keys()
    assert len(digests) == 1
    next_run = student(tmp_path / "next", student=spec, student_set={}, weights=str(path), epochs=1)
    assert train(next_run).loss < whole.loss + 0.5
