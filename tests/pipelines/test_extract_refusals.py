"""extract: another identity, a wrong setting, and a teacher whose answers cannot be stored are refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from kdcache.errors import BadLogitsError, InvalidInputError, KdcacheError, MismatchError, TeacherSuspectError
from kdcache.pipelines.extract.stage import extract
from kdcache.store.store import Store
from kdcache.training.run_folder import save_weights
from tests.kits import stages
from tests.kits.stages import BLOCKS, Stage, committed
from tests.kits.stores import all_files
from tests.kits.views import trained_network

stage = stages.stage


OTHERS: list[tuple[dict[str, Any], str, str, str]] = [
    ({"teacher_set": {"width": 8, "depth": 2}}, "teacher.arguments.depth", "'nothing'", "2"),
    ({"data_set": {"limit": 299}}, "dataset.rows", "300", "299"),
    ({"data_set": {"limit": 300, "split": "test"}}, "dataset.labels", "", ""),
    ({"transform": "none", "transform_set": {}}, "views.transform.name", "'light'", "'none'"),
    ({"transform_set": {"padding": 2, "flip": 0.0}}, "views.transform.arguments.padding", "1", "2"),
    ({"mix": "mixup"}, "views.mix", "'none'", "'mixup'"),
    ({"seed": 1}, "views.seed", "0", "1"),
    ({"top_k": 4}, "encoding.k", "3", "4"),
    ({"quantisation": "high"}, "encoding.quantisation", "'default'", "'high'"),
    ({"keep": ("features",)}, "encoding.features", "0", "16"),
    ({"order": "given"}, "order.kind", "'shuffled'", "'given'"),
    ({"precision": "bfloat16"}, "teacher.precision", "'float32'", "'bfloat16'"),
    ({"mask_classes": (3,)}, "teacher.masked_classes", "[]", "[3]"),
    ({"mean": (0.4,), "std": (0.5,)}, "teacher.mean", "[0.5]", "[0.4]"),
    ({"parents": ("ab" * 32,)}, "parents", "[]", "['abab"),
]


@pytest.mark.parametrize(("changes", "field", "stored", "given"), OTHERS, ids=[other[1] for other in OTHERS])
def test_another_identity_is_refused_and_nothing_changes(
    stage: Stage, changes: dict[str, Any], field: str, stored: str, given: str
) -> None:
    before = all_files(Path(stage.store))
    with pytest.raises(MismatchError, match="use another store path, or the settings") as refused:
        extract(stage.asked(stage.store, **changes))
    found = {name: (left, right) for name, left, right in refused.value.differences}
    assert found[field][0].startswith(stored)
    assert found[field][1].startswith(given)
    shown = [re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1...", value) for value in found[field]]
    assert f"{field}: the store has {shown[0]}, this run has {shown[1]}" in str(refused.value)
    assert all_files(Path(stage.store)) == before


def test_other_weights_are_refused(stage: Stage, tmp_path: Path) -> None:
    network = trained_network()
    with torch.no_grad():
        network[-1].bias[0] += 1e-3
    save_weights(tmp_path / "other.safetensors", network)
    with pytest.raises(MismatchError) as refused:
        extract(stage.asked(stage.store, weights=str(tmp_path / "other.safetensors")))
    assert [field for field, _, _ in refused.value.differences] == ["teacher.weights"]


def test_overlapping_views_are_refused_with_those_there_are(stage: Stage) -> None:
    before = all_files(Path(stage.store))
    with pytest.raises(InvalidInputError, match=r"views 1:3 overlap 0:2.* kdcache extract .* --views 2:3"):
        extract(stage.asked(stage.store, views="1:3"))
    assert all_files(Path(stage.store)) == before


@pytest.mark.parametrize("views", ["0", "", "a", "3:3", "4:2", "-1", "1:", ":2", "1:2:3", "1.5", "100001"])
def test_views_that_are_no_range_are_refused(stage: Stage, tmp_path: Path, views: str) -> None:
    with pytest.raises(ValidationError, match=r"such as 10:20|write start:stop|go from 0 to 100000"):
        extract(stage.asked(tmp_path / "digits.kd", views=views))
    assert not (tmp_path / "digits.kd").exists()


@pytest.mark.parametrize("rows", [65, 100])
def test_a_batch_that_cuts_mixing_groups_is_refused(stage: Stage, tmp_path: Path, rows: int) -> None:
    with pytest.raises(InvalidInputError, match=f"batch size {rows} is not a multiple of 64"):
        extract(stage.asked(tmp_path / "digits.kd", batch_size=rows))
    assert not (tmp_path / "digits.kd").exists()


NAN = """
import torch
from kdcache.networks import convnet

def net(width=8, num_classes=10):
    network = convnet(width=width, num_classes=num_classes)

    def spoil(module, inputs, logits):
        bright = inputs[0].sum((1, 2, 3)) > inputs[0].sum((1, 2, 3)).median() + 12
        return logits.masked_fill(bright[:, None], torch.nan)

    network.register_forward_hook(spoil)
    return network
"""


def test_nan_is_refused_naming_the_samples_and_the_block_is_not_written(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "nan.py").write_text(NAN)
    path = tmp_path / "digits.kd"
    named = r"NaN or Inf for \d+ rows: sample \d+ \(\d+\) \(view [01]\).*nothing of this block.*--mask-classes"
    with pytest.raises(BadLogitsError, match=named):
        extract(stage.asked(path, teacher=f"{tmp_path}/nan.py:net"))
    assert len(list(path.glob("views-*/classes/c/*/*/*"))) == committed(path) < BLOCKS
    assert not (path / "kdcache/seals").exists()


def test_a_label_beyond_the_teacher_s_classes_is_refused(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInputError, match=r"80 labels do not fit the teacher's 7 classes, 0 to 6: sample 6 \(6\) has 7"
    ):
        extract(stage.asked(tmp_path / "digits.kd", teacher_set={"num_classes": 7}, weights=""))
    assert not (tmp_path / "digits.kd").exists()


def test_a_teacher_near_chance_is_refused_before_anything_is_created(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(TeacherSuspectError, match=r"top-1 accuracy on \d+ clean rows is 0\.\d+, below 0.200.*--mean"):
        extract(stage.asked(tmp_path / "digits.kd", weights=""))
    assert list(tmp_path.iterdir()) == []
    assert extract(stage.asked(tmp_path / "digits.kd", weights="", min_accuracy=0.0)).content_id is not None


def test_permuted_classes_are_named(stage: Stage, tmp_path: Path) -> None:
    network = trained_network()
    with torch.no_grad():
        network[-1].weight.copy_(network[-1].weight.roll(1, 0))
        network[-1].bias.copy_(network[-1].bias.roll(1, 0))
    save_weights(tmp_path / "rolled.safetensors", network)
    with pytest.raises(TeacherSuspectError, match=r"classes permuted \(0 \(0\) is answered as class 1.*would be 0\.9"):
        extract(stage.asked(tmp_path / "digits.kd", weights=str(tmp_path / "rolled.safetensors")))


def test_a_teacher_below_the_accuracy_asked_for_is_refused(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(TeacherSuspectError, match=r"below 0.999"):
        extract(stage.asked(tmp_path / "digits.kd", min_accuracy=0.999))
    assert not (tmp_path / "digits.kd").exists()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"data": "digit"}, "there is no data set 'digit'; choose digits"),
    ({"data_set": {"split": "val"}}, "split is 'val'; choose train, test or all"),
    ({"data_set": {"limit": 0}}, "limit is 0"),
    ({"teacher": "convnet"}, "'convnet' names no network; write torchvision:NAME"),
    ({"teacher": "kdcache.networks:resnet"}, "has no resnet; it has"),
    ({"teacher": "torchvision:resnet18", "teacher_set": {}, "weights": ""}, "does not take views of shape"),
    ({"teacher_set": {"widht": 8}}, "widht"),
    ({"teacher_set": {"width": 4}}, "do not fit the network"),
    ({"weights": "/nowhere/w.safetensors"}, "there is no such file"),
    ({"transform": "lihgt"}, "there is no transform 'lihgt'; choose none, light"),
    ({"transform": "none"}, "takes other arguments"),
    ({"mean": (0.5,)}, "give both or neither"),
    ({"mean": (0.5, 0.5), "std": (0.5, 0.5)}, "views have 1 channels"),
    ({"mean": (0.5,), "std": (0.5, 0.5)}, "do not fit"),
    ({"mask_classes": (12,)}, r"masked classes \[12\] are not among the teacher's 10 classes"),
    (
        {"encoding": "topk", "top_k": 11},
        "top-k 11 was asked of 10 classes that are not masked; choose 1 to 10, or ",
    ),
    ({"device": "cuda:99"}, "device cuda:99 cannot be used"),
    ({"device": "gpu"}, "device gpu cannot be used"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[str(wrong[0])[:40] for wrong in WRONG])
def test_a_wrong_setting_is_refused_before_anything_is_created(
    stage: Stage, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(KdcacheError, match=message):
        extract(stage.asked(tmp_path / "digits.kd", **changes))
    assert list(tmp_path.iterdir()) == []


DRIFTING = """
import torch

class Drift:
    def __init__(self):
        self.generator = torch.Generator()

    def __call__(self, image):
        return image ^ torch.randint(256, (1,), generator=self.generator, dtype=torch.uint8)
"""


def test_a_transform_that_does_not_replay_is_refused(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "drift.py").write_text(DRIFTING)
    with pytest.raises(InvalidInputError, match="differs when it is drawn again in another order"):
        extract(stage.asked(tmp_path / "digits.kd", transform=f"{tmp_path}/drift.py:Drift", transform_set={}))
    assert not (tmp_path / "digits.kd").exists()


def test_a_folder_of_other_files_is_left_alone(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear reader")
    with pytest.raises(InvalidInputError, match=r"holds other files \(thesis.tex\); choose another place"):
        extract(stage.asked(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_killed_writer_leaves_is_no_obstacle(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "kdcache").mkdir()
    (tmp_path / "kdcache/.tmp-1234").write_bytes(b"half a manifest")
    assert extract(stage.asked(tmp_path)).content_id == Store.open(stage.store).content_id
