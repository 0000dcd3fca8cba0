"""Settings and objectives of pictures are refused on texts by name; the demo on text at toy size."""

import json
from pathlib import Path
from typing import Any

import pytest

from kdcache.errors import InvalidInputError
from kdcache.pipelines.demos import text as demo_text
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.train.stage import train
from tests.kits.texts import TEXT, VOCABULARY, Library


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(tmp_path_factory.mktemp("library"))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        (
            {"transform": "light"},
            "--transform is for pictures, and text sequence=32 tokenizer=bpe.json holds texts of 32",
        ),
        ({"mean": (0.5,), "std": (0.5,), "mix": "mixup"}, "--mix, --mean and --std are for pictures"),
        ({"view_cache": "x"}, "--view-cache is for pictures"),
        ({"curriculum": "3"}, "--curriculum is for pictures"),
        ({"val_transform": "center", "val_set": {"range": "0:4"}}, "--val-transform is for pictures"),
        ({"accept_drift": True}, "--accept-drift is for pictures"),
    ],
)
def test_settings_of_pictures_are_refused(
    library: Library, tmp_path: Path, changes: dict[str, Any], error: str
) -> None:
    with pytest.raises(InvalidInputError, match=error):
        train(library.student(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_objectives_of_layers_are_refused(library: Library, tmp_path: Path) -> None:
    extract(library.asked(tmp_path / "a.kd"))
    for name in ("sp", "rkd", "crd"):
        with pytest.raises(InvalidInputError, match=r"sees layers of the networks"):
            train(library.student(tmp_path / "run", store=(str(tmp_path / "a.kd"),), objective=name))
        assert not (tmp_path / "run").exists()


def test_the_demo_on_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {
        "VOCABULARY": VOCABULARY,
        "SEQUENCE": 32,
        "TEACHER_TEXTS": 64,
        "STUDENT_TEXTS": 32,
        "VALIDATION_TEXTS": 8,
    }
    for name, value in sizes.items():
        monkeypatch.setattr(demo_text, name, value)
    monkeypatch.setattr(demo_text, "TEACHER", {"width": 24, "tied": False})
    text = tmp_path / "licence.txt"
    text.write_text(TEXT.read_text())
    summary = demo_text.demo_text(tmp_path / "demo", text)
    assert [row.what for row in summary.rows] == [
        "teacher", "store of the top 20", "student with the store", "student alone"
    ]  # fmt: skip
    for row, run in zip((summary.rows[0], *summary.rows[2:]), ("teacher", "student-kd", "student-alone"), strict=True):
        last = json.loads((tmp_path / "demo" / run / "metrics.jsonl").read_text().splitlines()[-1])
        assert (row.perplexity, row.bits_a_byte) == (last["perplexity"], last["bits_a_byte"])
    again = demo_text.demo_text(tmp_path / "demo", text)
    assert again.content_id == summary.content_id
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    with pytest.raises(InvalidInputError, match="other is not empty; choose another folder for the demo"):
        demo_text.demo_text(tmp_path / "other", text)
    (tmp_path / "short.txt").write_text("In the beginning was the Word. " * 4)
    with pytest.raises(
        InvalidInputError, match=r"short\.txt has \d+ texts of 32 tokens, and the demo takes 72; name a"
    ):
        demo_text.demo_text(tmp_path / "third", tmp_path / "short.txt")


@pytest.mark.parametrize("encoding", [{"encoding": "full"}, {"encoding": "sampled", "draws": 5}, {"top_k": 4}])
def test_every_encoding_teaches_tokens(library: Library, tmp_path: Path, encoding: dict[str, Any]) -> None:
    extract(library.asked(tmp_path / "a.kd", **encoding))
    changes = {"store": (str(tmp_path / "a.kd"),), "temperature": 1.0, "val_set": {"range": "0:40"}}
    summary = train(library.student(tmp_path / "run", **changes))
    assert summary.validation["perplexity"] < 0.8 * VOCABULARY
