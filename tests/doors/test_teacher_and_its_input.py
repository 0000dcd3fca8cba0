"""What a teacher answers and what it is fed, from the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file, save_file

from kdcache.store.store import Store
from tests.kits import feeding, pictures
from tests.kits.doors import Door
from tests.kits.feeding import NETS, array_set, extract, log_probs
from tests.kits.stages import NETWORK

gallery = pictures.gallery
words = feeding.words


@pytest.mark.situation(
    "a teacher that ends in a softmax",
    "all rows lie in 0..1 and sum to 1; `--teacher-answers probs`, or the logits",
    exit_code=2,
    left="nothing new",
)
def test_a_teacher_of_probabilities(door: Door, words: dict[str, Any]) -> None:
    assert "--teacher-answers probs" in door.refused(*extract("softmax", words["data"], weights="wrapped"))


@pytest.mark.situation(
    "the same with `--teacher-answers probs`",
    "the store of the teacher without its softmax",
    exit_code=0,
    left="a whole store",
)
def test_probabilities_that_are_said_to_be(door: Door, words: dict[str, Any]) -> None:
    door.done(*extract("plain", words["data"], store="logits.kd"))
    probs = ("--teacher-answers", "probs")
    record = door.done(*extract("softmax", words["data"], *probs, weights="wrapped"))
    assert record["notes"] == []
    assert np.abs(log_probs(door, "a.kd") - log_probs(door, "logits.kd")).max() < 0.04  # steps of 1/16
    again = door.done(*extract("softmax", words["data"], weights="wrapped"))  # the store says what they are
    assert (again["blocks_done_before"], again["content_id"]) == (again["blocks"], record["content_id"])


@pytest.mark.situation(
    "`--teacher-answers probs` with a teacher that answers logits",
    "how many rows are no probabilities",
    exit_code=2,
    left="nothing new",
)
def test_logits_that_are_said_to_be_probabilities(door: Door, words: dict[str, Any]) -> None:
    message = door.refused(*extract("plain", words["data"], "--teacher-answers", "probs"))
    assert "are no probabilities" in message


FORMS = {"pair": "self.network(x)[0]", "one": "torch.zeros_like(z)", "map": ".mean((2, 3))"}


@pytest.mark.situation(
    "a teacher that answers a tuple, one number or a map",
    "what it answered, and the wrapper of four lines that mends it",
    exit_code=2,
    left="nothing new",
)
@pytest.mark.parametrize("net", FORMS)
def test_answers_of_other_forms(door: Door, words: dict[str, Any], net: str) -> None:
    message = door.refused(*extract(net, words["data"], weights="wrapped"))
    assert "class Wrapped(nn.Module)" in message
    assert FORMS[net] in message


def test_an_object_that_holds_logits(door: Door, words: dict[str, Any]) -> None:
    door.done(*extract("plain", words["data"], store="b.kd"))
    door.done(*extract("output", words["data"], weights="wrapped"))
    np.testing.assert_array_equal(log_probs(door, "a.kd"), log_probs(door, "b.kd"))
    run = ("--data", words["data"], "--store", "a.kd", "--epochs", 1, "--workers", 0, "--batch-size", 64)
    trained = door.done("train", "run", "--student", "nets.py:output", *run, "--val-set", "split=")
    expected = door.done("train", "plain", "--student", "nets.py:plain", *run, "--val-set", "split=")
    assert trained["loss"] == expected["loss"]
    assert trained["validation"] == expected["validation"]


@pytest.mark.situation(
    "a student that ends in a softmax",
    "that it answers probabilities",
    exit_code=2,
    left="nothing new",
)
def test_a_student_of_probabilities(door: Door, words: dict[str, Any]) -> None:
    message = door.refused("train", "run", "--student", "nets.py:softmax", "--data", words["data"], "--workers", 0)
    assert "the student answers probabilities" in message


def test_a_teacher_of_sigmoids_is_said(door: Door, words: dict[str, Any]) -> None:
    record = door.done(*extract("sigmoid", words["data"], weights="wrapped"))
    assert any("sigmoid" in note for note in record["notes"])


@pytest.mark.situation(
    "a teacher that answers percents, or the same for all views",
    "which of both, and what to return or to look at",
    exit_code=2,
    left="nothing new",
)
@pytest.mark.parametrize(("net", "text"), [("percents", "sum to 100"), ("constant", "one and the same answer")])
def test_answers_that_are_no_logits(door: Door, words: dict[str, Any], net: str, text: str) -> None:
    message = door.refused(*extract(net, words["data"], "--min-accuracy", 0, weights="wrapped"))
    assert text in message


@pytest.mark.situation(
    "samples that are numpy arrays",
    "nothing: they are drawn as images are",
    exit_code=0,
    left="a whole store",
)
@pytest.mark.parametrize("form", ["array", "first"])
def test_arrays_are_drawn_as_images(door: Door, words: dict[str, Any], form: str) -> None:
    own = ("--transform", "transforms.py:flips", "--views", 3, "--min-accuracy", 0.3)
    door.done(*extract("plain", "sets.py:Pictures", *array_set(words, "image"), *own, store="b.kd"))
    record = door.done(*extract("plain", "sets.py:Pictures", *array_set(words, form), *own))
    assert not any("equal" in note for note in record["notes"])
    stores = [Store.open(door.folder / name) for name in ("a.kd", "b.kd")]
    for view in range(3):
        a, b = (store.load(view, np.arange(store.rows)).arrays["pixels"] for store in stores)
        np.testing.assert_array_equal(a, b)


@pytest.mark.situation(
    "views that are all equal, several of them asked for",
    "a note that names the transform",
    exit_code=0,
    left="a whole store",
)
def test_equal_views_are_said(door: Door, words: dict[str, Any]) -> None:
    record = door.done(*extract("plain", words["data"], "--views", 3))
    assert any("views 0 and 1 are equal on all 16 samples" in note for note in record["notes"])


REFUSED = {
    "float64": ("sample 0", "float64", "astype(np.uint8)"),
    "grey": ("1 and 3 channels", "convert('RGB')"),
    "two": ("sample 0", "[3, 24, 3]", "[height, width, channels]", "[channels, height, width]"),
}


@pytest.mark.situation(
    "samples of another dtype, of mixed channels, or of two readings",
    "the sample, its dtype or shape, and what to return instead",
    exit_code=2,
    left="nothing new",
)
@pytest.mark.parametrize("form", REFUSED)
def test_samples_that_are_no_clear_image(door: Door, words: dict[str, Any], form: str) -> None:
    message = door.refused(*extract("plain", "sets.py:Pictures", *array_set(words, form)))
    assert all(part in message.replace("3 and 1 channels", "1 and 3 channels") for part in REFUSED[form]), message


@pytest.mark.situation("a teacher in half precision", "its dtype, and `--precision`", exit_code=2, left="nothing new")
def test_a_teacher_in_half_precision(door: Door, words: dict[str, Any]) -> None:
    message = door.refused(*extract("half", words["data"]))
    assert "torch.float16" in message
    assert "--precision" in message
    assert "--transform" not in message


@pytest.mark.situation(
    "floats from 0 to 1 that nobody normalised",
    "a note, or a refusal where labels show it; `--mean` and `--std` apply to them",
    exit_code=0,
    left="a whole store",
)
def test_floats_that_nobody_normalised(door: Door, words: dict[str, Any]) -> None:
    accepted = ("--min-accuracy", 0)
    door.done(*extract("plain", "sets.py:Pictures", *array_set(words, "normalised"), store="right.kd"))
    wrong = door.done(*extract("plain", "sets.py:Pictures", *array_set(words, "floats"), *accepted, store="wrong.kd"))
    assert any("floats are fed as they are, from 0 to 1" in note for note in wrong["notes"])
    given = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
    record = door.done(*extract("plain", "sets.py:Pictures", *array_set(words, "floats"), *given))
    assert record["notes"] == []
    right = log_probs(door, "right.kd")
    assert np.abs(log_probs(door, "a.kd") - right).max() < 0.13  # a step of 1/16 either way
    assert np.abs(log_probs(door, "wrong.kd") - right).max() > 0.5
    manifest = json.loads((door.folder / "a.kd/kdcache/manifest.json").read_text())
    assert manifest["identity"]["teacher"]["mean"] == [0.485, 0.456, 0.406]
    train = ["train", "run", "--student", NETWORK, "--student-set", "channels=3", "--data", "sets.py:Pictures"]
    door.done(*train, *array_set(words, "floats"), "--store", "a.kd", *given, "--epochs", 1, "--workers", 0)
    door.target = door.folder / "a.kd"


@pytest.mark.situation(
    "a network with a mean, std and size of its own",
    "a note: they are used where none are given",
    exit_code=0,
    left="a whole store",
)
def test_a_network_s_own_mean_and_std(door: Door, words: dict[str, Any]) -> None:
    accepted = ("--min-accuracy", 0)
    record = door.done(*extract("configured", words["data"], *accepted))
    assert any("fed with mean 0.5,0.5,0.5 and std 0.25,0.25,0.25" in note for note in record["notes"])
    assert any("views are 24 x 24 pixels" in note and "32 x 32" in note for note in record["notes"])
    manifest = json.loads((door.folder / "a.kd/kdcache/manifest.json").read_text())
    assert manifest["identity"]["teacher"]["mean"] == [0.5, 0.5, 0.5]
    given = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
    door.done(*extract("configured", words["data"], *given, store="b.kd"))
    more = door.done(
        *extract("configured", words["data"], *accepted, "--views", "1:2", store="b.kd")
    )  # the store's own
    assert any("0.485,0.456,0.406" in note for note in more["notes"])


def _deep(root: Path, scale: float, dtype: Any, ext: str) -> None:
    for path in sorted(root.rglob("*")):
        if path.suffix in (".png", ".jpg"):
            grey = np.asarray(PIL.Image.open(path).convert("L"))
            path.unlink()
            PIL.Image.fromarray((grey.astype(np.float64) * scale).astype(dtype)).save(path.with_suffix(ext))


@pytest.mark.situation("16-bit pictures", "nothing: they are scaled to 8 bits", exit_code=0, left="a whole store")
def test_16_bit_pictures(door: Door, words: dict[str, Any]) -> None:
    pictures.write_pictures(door.folder / "grey", each=20)
    pictures.write_pictures(door.folder / "deep", each=20)
    _deep(door.folder / "grey", 1, np.uint8, ".png")
    _deep(door.folder / "deep", 257, np.uint16, ".png")
    door.done(*extract("plain", "folder:grey", "--min-accuracy", 0, store="b.kd"))
    door.done(*extract("plain", "folder:deep", "--min-accuracy", 0))
    a, b = (Store.open(door.folder / name) for name in ("a.kd", "b.kd"))
    rows = np.arange(a.rows)
    np.testing.assert_array_equal(a.load(0, rows).arrays["pixels"], b.load(0, rows).arrays["pixels"])
    np.testing.assert_array_equal(log_probs(door, "a.kd"), log_probs(door, "b.kd"))


@pytest.mark.situation(
    "float pictures, whose range nobody knows", "the file, its mode and its values", exit_code=2, left="nothing new"
)
def test_float_pictures(door: Door, words: dict[str, Any]) -> None:
    pictures.write_pictures(door.folder / "deep", each=2)
    _deep(door.folder / "deep", 1 / 255, np.float32, ".tiff")
    message = door.refused(*extract("plain", "folder:deep", "--min-accuracy", 0))
    assert ".tiff has pixels of mode F" in message


def test_a_dry_run_says_what_extract_would(door: Door, words: dict[str, Any]) -> None:
    state = load_file(door.folder / "plain.safetensors")
    state["16.weight"], state["16.bias"] = 100 * state["16.weight"], 100 * state["16.bias"]
    save_file(state, door.folder / "wide.safetensors")
    dry = door.done(*extract("plain", words["data"], "--views", 2, "--dry-run", weights="wide"))
    assert any("--quantisation high" in note for note in dry["notes"])
    assert any("views 0 and 1 are equal" in note for note in dry["notes"])
    assert not (door.folder / "a.kd").exists()


def test_verify_tells_a_store_of_probabilities_that_were_taken_as_logits(door: Door, words: dict[str, Any]) -> None:
    """A store of before the check: its teacher answered probabilities at extraction too."""
    door.write("before.py", NETS.replace("self.network(x).softmax(dim=1)", "self.network(x) + 0"))
    door.write("nets.py", NETS)
    assert torch.is_tensor(load_file(door.folder / "wrapped.safetensors")["network.0.weight"])
    options = ["--weights", "wrapped.safetensors", "--data", words["data"], "--top-k", 2, "--workers", 0]
    door.done("extract", "a.kd", "--teacher", "before.py:softmax", *options, "--batch-size", 64)
    outcome = door.run(
        "verify", "a.kd", "--data", words["data"], "--teacher", "nets.py:softmax", "--weights", "wrapped.safetensors",
        "--json",
    )  # fmt: skip
    assert outcome.exit_code == 1
    kinds = {check["name"]: check["passed"] for check in outcome.record["checks"]}
    assert kinds["teacher kind"] is False
