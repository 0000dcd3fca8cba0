"""A wrongly fed teacher is noticed by extract: mean and std, channels, classes, train mode; a clean one passes.

The teacher knows crops of four photographs by 95 %. Fed wrongly it often stays above twice chance, as teachers do.
"""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from kdcache.errors import InvalidInputError, KdcacheError, TeacherSuspectError
from kdcache.networks.teacher_check import twice_chance
from kdcache.pipelines.extract.stage import extract
from tests.kits import pictures
from tests.kits.pictures import PLACES, Gallery
from tests.kits.stores import all_files

gallery = pictures.gallery

HEAD = """
import torch
from torch import nn
from torch.nn import functional as F

from kdcache.networks import convnet


def net(width=8, channels=3, num_classes=4):
    network = convnet(width=width, channels=channels, num_classes=num_classes)
"""
BODIES = {
    "bgr": "    network.register_forward_pre_hook(lambda module, inputs: inputs[0].flip(1))\n    return network\n",
    "train": "    return network.train()\n",
    "stuck": "    network[1].train = lambda mode=True: network[1]\n    return network\n",
    "dropout": "    network[-2].register_forward_hook(lambda m, i, out: F.dropout(out, 0.1))\n    return network\n",
    "batch": """    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            def over_batch(x, m=module):
                return F.batch_norm(x, None, None, m.weight, m.bias, training=True)
            module.forward = over_batch
    return network
""",
}


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    """A folder with the user's own networks: convnets of the same weights that want or do something else."""
    for name, body in BODIES.items():
        (tmp_path / f"{name}.py").write_text(HEAD + body)
    return tmp_path


def reordered(weights: str, path: Path, order: list[int]) -> str:
    """The weights with the classifier's rows in another order: as a teacher of other class numbers has them."""
    state = load_file(weights)
    for name in ("16.weight", "16.bias"):
        state[name] = state[name][order].clone()
    save_file(state, path)
    return str(path)


def test_the_clean_teacher_passes(gallery: Gallery, tmp_path: Path) -> None:
    summary = extract(gallery.asked(tmp_path / "a.kd"))
    assert summary.accuracy_clean is not None
    assert summary.accuracy_clean > 0.9
    assert summary.content_id is not None


NORMALISATIONS = {
    "0.5 and 0.5": ((0.5,) * 3, (0.5,) * 3),
    "0 to 1": ((0.0,) * 3, (1.0,) * 3),
    "0 to 255": ((0.0,) * 3, (1 / 255,) * 3),
}


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_another_mean_and_std_is_noticed_and_the_right_one_named(gallery: Gallery, tmp_path: Path, name: str) -> None:
    mean, std = NORMALISATIONS[name]
    with pytest.raises(TeacherSuspectError, match=r"fed with ImageNet's mean and std it would be 0\.9\d\d"):
        extract(gallery.asked(tmp_path / "a.kd", mean=mean, std=std))
    assert not (tmp_path / "a.kd").exists()


def test_swapped_channels_are_noticed_above_the_limit_too(gallery: Gallery, nets: Path) -> None:
    wrong: dict[str, Any] = {"teacher": f"{nets}/bgr.py:net"}
    with pytest.raises(
        TeacherSuspectError, match=r"fed with channels, mean and std reversed \(RGB, BGR\) it would be 0\.9"
    ):
        extract(gallery.asked(nets / "a.kd", **wrong))
    assert not (nets / "a.kd").exists()
    vouched = extract(gallery.asked(nets / "a.kd", **wrong, min_accuracy=0.3))
    assert vouched.accuracy_clean is not None
    assert twice_chance(len(PLACES)) < vouched.accuracy_clean < 0.7, "a limit alone would not have seen it"


@pytest.mark.parametrize(
    ("order", "named"),
    [
        ([1, 2, 3, 0], r"0 \(cat\) is answered as class 3, 1 \(coffee\)"),
        ([0, 1, 3, 2], r"\(2 \(eye\) is .* class 3, 3"),
    ],
    ids=["all", "two"],
)
def test_permuted_classes_are_noticed_and_named(gallery: Gallery, tmp_path: Path, order: list[int], named: str) -> None:
    wrong = reordered(gallery.weights, tmp_path / "wrong.safetensors", order)
    with pytest.raises(TeacherSuspectError, match=rf"with the classes permuted .*{named}.* it would be 0\.9"):
        extract(gallery.asked(tmp_path / "a.kd", weights=wrong))
    assert not (tmp_path / "a.kd").exists()


def test_a_teacher_left_in_train_mode_answers_as_in_eval_mode(gallery: Gallery, nets: Path) -> None:
    extract(gallery.asked(nets / "a.kd", teacher=f"{nets}/train.py:net"))
    found, expected = (
        {name: data for name, data in all_files(path).items() if name.startswith("views-")}
        for path in (nets / "a.kd", Path(gallery.store))
    )
    assert len(expected) > 8
    assert found == expected


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("stuck", InvalidInputError, r"stays in train mode: 1 \(1 modules\) is in train mode after eval\(\)"),
        ("dropout", TeacherSuspectError, r"otherwise in batches of 3 .*train mode: look for dropout that is always on"),
        ("batch", TeacherSuspectError, r"otherwise in batches of 3 .*batch norm without running statistics"),
    ],
)
def test_a_teacher_that_cannot_leave_train_mode_is_refused(
    gallery: Gallery, nets: Path, name: str, kind: type[KdcacheError], message: str
) -> None:
    for vouched in (None, 0.0):
        with pytest.raises(kind, match=message):
            extract(gallery.asked(nets / "a.kd", teacher=f"{nets}/{name}.py:net", min_accuracy=vouched))
    assert not (nets / "a.kd").exists()


def test_low_precision_is_steady(gallery: Gallery, tmp_path: Path) -> None:
    assert extract(gallery.asked(tmp_path / "a.kd", precision="bfloat16")).content_id is not None
