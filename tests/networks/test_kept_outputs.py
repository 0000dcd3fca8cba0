"""Kept outputs: features and taps in a store are those of a plain forward of the network, rounded to f16."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import VisionTransformer, resnet18

from kdcache.base.view_span import ViewSpan
from kdcache.errors import BadOutputsError, InvalidInputError
from kdcache.labels.encoding import Tap
from kdcache.networks.preparation import Preparation, default_normalisation
from kdcache.networks.small import convnet
from kdcache.networks.taps import Tapped
from kdcache.networks.teacher import Teacher
from kdcache.pipelines.extract.kept import kept_taps
from kdcache.store.plan import GROUP
from kdcache.views.mixing import mix_images
from kdcache.views.view_stack import ViewRequest
from tests.kits.views import TOPK, Mix, Setting, extract_store, make_setting, picture_data, plan_of, teacher_of
from tests.networks.test_struck_extraction import ROWS as TORN_ROWS
from tests.networks.test_struck_extraction import struck_store

ROWS, CLASSES = 90, 9
ROUNDING = 2.0**-11  # relative, of f16
NOISE = 1e-5  # of f32 sums in other batches


class Tokens(nn.Module):
    """A vision transformer of two blocks on pictures of 17 x 15, cut to 16 x 16."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = VisionTransformer(16, 8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=CLASSES)
        self.head = nn.Linear(CLASSES, CLASSES)

    def __getitem__(self, index: int) -> nn.Module:
        return self.head

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.head(self.vit(functional.pad(images, (0, 1))[:, :, :16]))
        return answer


def teacher(kind: str, **options: Any) -> Teacher:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = {"cnn": lambda: convnet(width=6, channels=3, num_classes=CLASSES), "vit": Tokens}[kind]()
    return teacher_of(network, channels=3, **options)


def setting_of(kind: str, keep: tuple[str, ...], mix: Mix = "none", rows: int = ROWS, **options: Any) -> Setting:
    asked, data = teacher(kind, **options), picture_data(rows)
    taps = kept_taps(asked, data.samples[0][0], keep)
    encoding = TOPK.model_copy(update={"taps": taps})
    return make_setting(data, asked, plan_of("light", mix, padding=2), encoding)


def plain(setting: Setting, view: int, layer: str) -> Tensor:
    """The layer's output for all positions of a view, by a hook on the bare network."""
    drawn = setting.dataset[ViewRequest(ViewSpan.of(view), np.arange(len(setting.order)))]
    images = setting.teacher.preparation(drawn.images[0])
    mixed = mix_images(images, drawn.mixing[0], drawn.mixing[0].partners, setting.dataset.plan.mix)
    outputs: list[Tensor] = []
    module = setting.teacher.network.get_submodule(layer)
    handle = module.register_forward_hook(lambda module, inputs, output: outputs.append(output.clone()))
    with torch.no_grad():
        setting.teacher.network(mixed)
    handle.remove()
    return outputs[0]


def assert_stored(stored: Any, expected: Tensor) -> None:
    np.testing.assert_allclose(stored.astype("f4"), expected.numpy(), rtol=ROUNDING, atol=NOISE)


@pytest.mark.parametrize("mix", ["none", "cutmix"])
def test_maps_of_a_convnet_are_those_of_a_plain_forward(tmp_path: Path, mix: Mix) -> None:
    """`1` is written over by the ReLU behind it: the tap holds what batch norm answered."""
    setting = setting_of("cnn", ("tap:1", "tap:9@3x2", "stages"), mix)
    shapes = {tap.name: tap.shape for tap in setting.identity.encoding.taps}
    assert list(shapes) == ["1", "9@3x2", "5@1x1", "12@1x1", "13@1x1"]
    assert (shapes["1"], shapes["9@3x2"], shapes["12@1x1"]) == ((6, 17, 15), (12, 3, 2), (12, 1, 1))
    store = extract_store(tmp_path / "a.kd", setting)
    for view in (0, 1):
        rows = store.load(view, np.arange(ROWS), taps=list(shapes))
        assert_stored(rows.tap("1"), plain(setting, view, "1"))
        assert rows.tap("1").min() < 0
        assert_stored(rows.tap("9@3x2"), functional.adaptive_avg_pool2d(plain(setting, view, "9"), (3, 2)))
        assert_stored(rows.tap("12@1x1"), plain(setting, view, "12").mean(dim=(2, 3), keepdim=True))


def test_tokens_of_a_transformer_are_those_of_a_plain_forward(tmp_path: Path) -> None:
    block = "vit.encoder.layers.encoder_layer_"
    setting = setting_of("vit", (f"tap:{block}0", f"tap:{block}1@1x2", "stages"))
    shapes = {tap.name: tap.shape for tap in setting.identity.encoding.taps}
    stages = {f"{block}0@1x1": (1, 8), f"{block}1@1x1": (1, 8)}
    assert shapes == {f"{block}0": (5, 8), f"{block}1@1x2": (2, 8)} | stages
    store = extract_store(tmp_path / "a.kd", setting)
    rows = store.load(1, np.arange(ROWS), taps=list(shapes))
    assert_stored(rows.tap(f"{block}0"), plain(setting, 1, f"{block}0"))
    assert_stored(rows.tap(f"{block}0@1x1"), plain(setting, 1, f"{block}0").mean(dim=1, keepdim=True))
    expected = functional.adaptive_avg_pool1d(plain(setting, 1, f"{block}1").transpose(1, 2), 2).transpose(1, 2)
    assert_stored(rows.tap(f"{block}1@1x2"), expected)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_watching_taps_changes_no_answer(precision: Any) -> None:
    """Not even where the classifier itself is a tap: under autocast it answers in f32 as without."""
    plain_teacher, watching = (teacher("cnn", precision=precision) for _ in range(2))
    watching.watch(["3", "16"])
    images = plain_teacher.preparation(torch.stack([picture_data(8).samples[i][0] for i in range(8)]))
    expected, answer = plain_teacher.answer(images), watching.answer(images)
    assert torch.equal(answer.logits, expected.logits)
    assert answer.features is not None
    assert expected.features is not None
    assert torch.equal(answer.features, expected.features)
    assert torch.equal(answer.taps["16"].float(), answer.logits)
    watching.watch([])
    assert not watching.answer(images).taps


def test_a_node_of_the_traced_graph_is_taken_before_an_in_place_layer_writes_into_it() -> None:
    torch.manual_seed(0)
    network = resnet18(num_classes=5).eval()
    sums: list[Tensor] = []
    block = network.layer1[0]
    block.relu.register_forward_pre_hook(lambda module, inputs: sums.append(inputs[0].clone()))
    with torch.no_grad():
        _, taps = Tapped(network, ["layer1.0.add"])(torch.randn(2, 3, 32, 32))
    assert taps["layer1.0.add"].min() < 0
    assert torch.equal(taps["layer1.0.add"], sums[1])  # of two calls the second one


def test_struck_rows_hold_zeros(tmp_path: Path) -> None:
    setting = setting_of("cnn", ("tap:3@2x2",), "mixup", rows=TORN_ROWS)
    store = struck_store(tmp_path / "a.kd", setting, {4, 50})
    segment = store.segments[0]
    struck = store.struck(0)
    assert len(struck) in (2, 3, 4)
    raw = segment.read(0, struck, ["taps.0"]).arrays["taps.0"]
    assert not raw.any()
    kept = np.setdiff1d(np.arange(TORN_ROWS), struck)
    assert store.load(0, kept, taps=["3@2x2"]).tap("3@2x2").any(axis=(1, 2, 3)).all()


class Bad(nn.Module):
    """Batch norm's output, wrong at one place for one picture, which the layers behind it do not see."""

    def __init__(self, network: nn.Sequential, value: float) -> None:
        super().__init__()
        self.network, self.value, self.tap = network, value, nn.Identity()

    def __getitem__(self, index: int) -> nn.Module:
        return self.network[index]

    def forward(self, images: Tensor) -> Tensor:
        values = images.mean(dim=(2, 3))
        values[images.flatten(1).argmax(dim=1) % 7 == 3] = self.value
        self.tap(values)
        answer: Tensor = self.network(images)
        return answer


@pytest.mark.parametrize(
    ("value", "problem"), [(float("nan"), "NaN"), (float("inf"), "Inf, or"), (7e4, "beyond 65504")]
)
def test_what_f16_does_not_hold_is_refused_by_its_samples(tmp_path: Path, value: float, problem: str) -> None:
    good = convnet(width=4, channels=3, num_classes=CLASSES)
    bad = Teacher(Bad(good, value), preparation=Preparation(*default_normalisation(3), "cpu"))
    data = picture_data(2 * GROUP)
    taps = kept_taps(bad, data.samples[0][0], ("tap:tap",))
    setting = make_setting(data, bad, plan_of("none"), TOPK.model_copy(update={"taps": taps}))
    images = bad.preparation(torch.stack([data.samples[i][0] for i in setting.order[:GROUP]]))
    victims = np.flatnonzero((images.flatten(1).argmax(dim=1) % 7 == 3).numpy())
    assert 0 < len(victims) < GROUP
    message = (
        rf"layer tap holds .*{problem}.* for {2 * len(victims)} rows: sample {setting.order[victims[0]]} \(view 0\)"
    )
    with pytest.raises(BadOutputsError, match=message) as caught:
        extract_store(tmp_path / "a.kd", setting)
    assert "without tap:tap in --keep" in str(caught.value)


def test_features_beyond_f16_are_refused_too(tmp_path: Path) -> None:
    network = convnet(width=4, channels=3, num_classes=CLASSES)
    with torch.no_grad():
        network[-6].weight.fill_(1e6)
        network[-6].bias.fill_(1e6)
        network[-1].weight *= 1e-6
    loud = teacher_of(network, channels=3)
    setting = make_setting(picture_data(64), loud, plan_of("none"), TOPK.model_copy(update={"features": 8}))
    with pytest.raises(
        BadOutputsError, match=r"pooled penultimate features .*65504.* for 128 rows: sample .*features in"
    ):
        extract_store(tmp_path / "a.kd", setting)


def test_a_layer_whose_shape_hangs_on_the_batch_is_refused(tmp_path: Path) -> None:
    setting = setting_of("cnn", ("tap:3",))
    other = setting.identity.encoding.model_copy(update={"taps": (Tap(name="3", shape=(4, 5, 5)),)})
    wrong = make_setting(setting.data, setting.teacher, setting.dataset.plan, other)
    with pytest.raises(InvalidInputError, match=r"layer 3 has shape \[6, 17, 15\] for one batch and \[4, 5, 5\]"):
        extract_store(tmp_path / "a.kd", wrong)
