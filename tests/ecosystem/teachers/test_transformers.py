"""Teachers and students from transformers: extracted, verified, trained, and the same wherever their folder lies."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    GPT2Config,
    GPT2LMHeadModel,
    ResNetConfig,
    ResNetForImageClassification,
)

from kdcache.networks.answers import logits_of
from kdcache.networks.build import build_network, network_text
from kdcache.networks.weights import load_weights, weights_digest
from kdcache.store.store import Store
from tests.kits.doors import Door
from tests.kits.tiny_models import CLASSES, NAMES, vit_config

HALF = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a small network with untrained weights, without an image processor."""
    folder = tmp_path_factory.mktemp("models") / "resnet"
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    ResNetForImageClassification(ResNetConfig(**sizes, num_labels=5)).save_pretrained(folder)
    return folder


def test_a_folder_teaches_wherever_it_lies_and_students_teach_in_turn(
    door: Door, vit: Path, photos: Path, resnet: Path
) -> None:
    data = ("--data", f"folder:{photos}", "--data-set", "split=train", "--transform", "center", "--workers", 0)
    record = door.done(
        "extract", "a.kd", "--teacher", f"transformers:{vit}", *data, "--keep", "features,head,tap:classifier"
    )
    notes = " | ".join(record["notes"])
    assert record["accuracy_clean"] == 1.0  # its classes have another order than the data's
    assert "views are 32 x 32 pixels, bilinear, resized without regard to their ratio" in notes
    assert "by name (id2label of its config.json)" in notes
    identity = Store.open("a.kd").identity
    assert (identity.teacher.name, identity.teacher.arguments) == ("transformers:ViTForImageClassification", {})
    assert (identity.teacher.mean, identity.teacher.std) == (HALF, HALF)
    assert identity.teacher.class_map == tuple(CLASSES.index(name) for name in NAMES)
    assert identity.plan.transform.arguments == {"size": 32, "squash": True}
    _require_library_s_answers(Store.open("a.kd"), vit, photos)

    shutil.copytree(vit, door.folder / "elsewhere")
    more = door.run_apart(
        "extract", "a.kd", "--teacher", "transformers:elsewhere", *data, "--views", "1:2",
        "--keep", "features,head,tap:classifier", timeout=400,
    )  # fmt: skip
    assert more.exit_code == 0, more
    verdict = door.done("verify", "a.kd", *data[:4], "--teacher", "transformers:elsewhere")
    assert verdict["whole"]

    train = ("--student", f"transformers:{resnet}", "--student-set", "pretrained=false", "--val-set", "split=val")
    rates = ("--optimizer", "adamw", "--lr", 0.01, "--epochs", 1)
    door.done("train", "runs/fresh", *train, *rates, "--store", "a.kd", *data)
    door.done(
        "extract", "b.kd", "--teacher", "run:runs/fresh", *data, "--transform-set", "size=32", "--min-accuracy", 0
    )
    assert Store.open("b.kd").identity.teacher.label_classes == len(CLASSES)


def _require_library_s_answers(store: Store, vit: Path, photos: Path) -> None:
    """The stored answers are those of transformers' own pipeline on the files."""
    processor = AutoImageProcessor.from_pretrained(vit, local_files_only=True, backend="pil")
    network = AutoModelForImageClassification.from_pretrained(vit, local_files_only=True).eval()
    soft = store.read(0, np.arange(store.rows))
    for position in range(6):
        index = int(store.order[position])
        path = sorted(photos.glob("train/*/*.png"))[index]
        with Image.open(path) as picture, torch.inference_mode():
            answer = network(**processor(picture.convert("RGB"), return_tensors="pt")).logits
        wanted = answer.log_softmax(dim=1)[0, [NAMES.index(name) for name in CLASSES]]
        stored = np.take_along_axis(soft.log_probs(1.0)[position], np.argsort(soft.classes[position]), axis=0)
        np.testing.assert_allclose(stored, wanted.numpy(), atol=0.05)


def test_layers_are_listed_on_an_image_of_the_network_s_own_size(door: Door, vit: Path) -> None:
    layers = door.done("taps", f"transformers:{vit}")
    assert layers["image"] == [3, 32, 32]
    assert layers["features"] == 16
    assert "classifier" in [layer["name"] for layer in layers["layers"]]


def test_the_identity_hangs_on_weights_and_settings_alone(tmp_path: Path, vit: Path) -> None:
    def identity(folder: Path) -> tuple[str, str]:
        network = build_network(f"transformers:{folder}", {}, 10, "teacher")
        return network_text(network, f"transformers:{folder}"), weights_digest(network)

    shutil.copytree(vit, tmp_path / "copy")
    config = tmp_path / "copy" / "config.json"
    config.write_text(config.read_text().replace('"owl"', '"barn owl"'))
    assert identity(tmp_path / "copy") == identity(vit)
    config.write_text(config.read_text().replace('"hidden_act": "gelu"', '"hidden_act": "relu"'))
    text, weights = identity(tmp_path / "copy")
    assert weights == identity(vit)[1]
    assert text != identity(vit)[0]


def test_a_student_of_other_classes_gets_a_fresh_classifier_by_its_seed(vit: Path) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(7)
        states.append(build_network(f"transformers:{vit}", {}, 5, "student").state_dict())
    teacher = build_network(f"transformers:{vit}", {}, 5, "teacher").state_dict()
    assert states[0]["classifier.weight"].shape[0] == 5
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name])
        assert name.startswith("classifier") or torch.equal(value, teacher[name])


def test_weights_in_several_files_are_loaded_by_their_index(tmp_path: Path, resnet: Path) -> None:
    network = build_network(f"transformers:{resnet}", {}, 5, "teacher")
    network.save_pretrained(tmp_path, max_shard_size="10KB")
    index = tmp_path / "model.safetensors.index.json"
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    fresh = build_network(f"transformers:{resnet}", {"pretrained": False}, 5, "teacher")
    load_weights(fresh, index)
    assert weights_digest(fresh) == weights_digest(network)
    assert weights_digest(build_network(f"transformers:{tmp_path}", {}, 5, "teacher")) == weights_digest(network)


def test_a_language_model_answers_logits_by_token(tmp_path: Path) -> None:
    ends = {"bos_token_id": 0, "eos_token_id": 1}
    GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, **ends)).save_pretrained(tmp_path)
    network = build_network(f"transformers:{tmp_path}", {"task": "causal-lm"}, 10, "teacher").eval()
    tokens = torch.arange(14).reshape(2, 7)
    output = network(tokens)
    assert list(output) == ["logits"]  # no cache of keys and values
    assert logits_of(output, "teacher").shape == (2, 7, 50)


def test_a_name_of_the_hub_is_looked_up_in_its_cache_alone(
    tmp_path: Path, vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = "0123456789abcdef0123456789abcdef01234567"
    folder = tmp_path / "models--me--tiny"
    shutil.copytree(vit, folder / "snapshots" / revision)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    network = build_network("transformers:me/tiny", {}, 10, "teacher")
    assert weights_digest(network) == weights_digest(build_network(f"transformers:{vit}", {}, 10, "teacher"))


def test_half_precision_is_computed_in_f32(tmp_path: Path) -> None:
    AutoModelForImageClassification.from_config(vit_config()).half().save_pretrained(tmp_path)
    network = build_network(f"transformers:{tmp_path}", {}, 3, "teacher")
    assert {value.dtype for value in network.parameters()} == {torch.float32}
