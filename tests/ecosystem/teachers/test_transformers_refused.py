"""Folders of transformers that are no teacher are refused by name, with the way on."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForImageClassification,
    BertConfig,
    BertForSequenceClassification,
    ViTForImageClassification,
    ViTModel,
)

from kdcache.errors import InvalidInputError
from kdcache.networks.build import build_network
from kdcache.networks.own_input import known_input
from kdcache.networks.weights import weights_digest
from tests.kits.doors import Door
from tests.kits.tiny_models import vit_config


def refusal(spec: object, noun: str = "teacher", **arguments: object) -> str:
    with pytest.raises(InvalidInputError) as refused:
        build_network(f"transformers:{spec}", arguments, 3, noun)
    return str(refused.value)


def test_a_pickle_is_refused_with_the_conversion_that_works(tmp_path: Path, vit: Path) -> None:
    folder = tmp_path / "old"
    shutil.copytree(vit, folder)
    network = AutoModelForImageClassification.from_pretrained(folder, local_files_only=True)
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    message = refusal(folder)
    assert "has pytorch_model.bin and no model.safetensors: a pickle is not read" in message
    exec(message.partition("in Python, once: ")[2], {})
    converted = build_network(f"transformers:{folder}", {}, 3, "teacher")
    assert weights_digest(converted) == weights_digest(network)


def test_code_of_a_folder_is_never_run(tmp_path: Path, vit: Path) -> None:
    folder = tmp_path / "code"
    shutil.copytree(vit, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "modeling.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    auto_map = {"AutoModelForImageClassification": "modeling.Net", "AutoConfig": "modeling.Config"}
    for model_type in ("vit", "unheard-of"):
        (folder / "config.json").write_text(json.dumps({**config, "model_type": model_type, "auto_map": auto_map}))
        message = refusal(folder)
        assert "brings code of its own (modeling.Config, modeling.Net, by auto_map in its config.json)" in message
        assert "file.py:callable" in message
    assert not (tmp_path / "ran").exists()


def test_networks_of_another_task_are_refused(tmp_path: Path) -> None:
    ViTModel(vit_config()).save_pretrained(tmp_path / "body")
    message = refusal(tmp_path / "body")
    assert re.search(r"lack classifier\.bias, classifier\.weight \(2 tensors\).* it holds ViTModel, not an", message)
    student = build_network(f"transformers:{tmp_path / 'body'}", {}, 3, "student")  # learns a classifier
    assert student(torch.zeros(1, 3, 32, 32)).logits.shape == (1, 3)

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertForSequenceClassification(BertConfig(**sizes, vocab_size=20)).save_pretrained(tmp_path / "bert")
    assert "is BertForSequenceClassification, not an image classifier; give task=causal-lm" in refusal(
        tmp_path / "bert"
    )
    ViTForImageClassification(vit_config(problem_type="multi_label_classification")).save_pretrained(tmp_path / "multi")
    assert "several labels a picture" in refusal(tmp_path / "multi")


def test_a_body_that_lacks_weights_is_refused_for_students_too(tmp_path: Path, vit: Path) -> None:
    folder = tmp_path / "deeper"
    shutil.copytree(vit, folder)
    config = (folder / "config.json").read_text().replace('"num_hidden_layers": 1', '"num_hidden_layers": 2')
    (folder / "config.json").write_text(config)
    assert "its weights lack" in refusal(folder, "student")


def test_wrong_names_and_arguments_are_refused(tmp_path: Path, vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"there is no folder {tmp_path}/none" in refusal(tmp_path / "none")
    assert f"{tmp_path} has no config.json" in refusal(tmp_path)
    assert "download=true" in refusal("me/none")
    assert "takes task, num_classes, pretrained, download, not size" in refusal(vit, size=3)
    assert "task is 'text'; choose image or causal-lm" in refusal(vit, task="text")
    assert "not a causal language model; give task=image" in refusal(vit, task="causal-lm")
    assert "answers 3 classes, and num_classes=7 was given" in refusal(vit, num_classes=7)
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install 'kdcache[transformers]'" in refusal(vit)


def test_other_classes_than_the_data_s_want_a_class_map(door: Door, photos: Path) -> None:
    numbered = vit_config(id2label={number: f"LABEL_{number}" for number in range(5)}, label2id={})
    ViTForImageClassification(numbered).save_pretrained("five")
    words = ("extract", "a.kd", "--teacher", "transformers:five", "--data", f"folder:{photos}", "--data-set")
    size = ("split=train", "--transform", "center", "--transform-set", "size=32", "--workers", 0)
    message = door.refused(*words, *size)
    assert "the teacher answers 5 classes, the data has 3" in message
    assert "--class-map FILE" in message
    wrong = door.refused(*words, "split=train", "--transform", "center", "--workers", 0, "--labels", "none")
    assert "Input image size (224*224) doesn't match model (32*32)" in wrong


def test_kernels_and_broken_files_of_a_folder_are_refused(tmp_path: Path, vit: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(vit, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attn_implementation": "someone/kernel"}))
    assert "names kernels to be fetched and run (attn_implementation someone/kernel)" in refusal(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:100])
    assert "cannot be loaded" in refusal(folder)


@pytest.mark.parametrize("setting", ["do_flip_channel_order", "include_top", "rescale_offset"])
def test_a_processor_that_does_more_is_refused(tmp_path: Path, vit: Path, setting: str) -> None:
    """MobileViT wants BGR, EfficientNet normalises twice or from -1: mean and std do not say so."""
    folder = tmp_path / "folder"
    shutil.copytree(vit, folder)
    kinds = {"do_flip_channel_order": "MobileViTImageProcessor"}
    record = {"image_processor_type": kinds.get(setting, "EfficientNetImageProcessor"), setting: True}
    (folder / "preprocessor_config.json").write_text(json.dumps(record))
    with pytest.raises(InvalidInputError, match=rf"asks for .*{setting}.*wrap the network in a file\.py:callable"):
        known_input(f"transformers:{folder}", {}, "")
