"""Settings and objectives of pictures are refused on texts by name; the demo on text at toy size."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.cli.app import main
from kdcache.errors import InvalidInputError
from kdcache.pipelines.compare.held_out import HeldOut
from kdcache.pipelines.compare.settings import CompareSettings
from kdcache.pipelines.demos import text as demo_text
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.importing.settings import ImportSettings
from kdcache.pipelines.importing.stage import import_store
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.stage import train
from kdcache.pipelines.verify.settings import VerifySettings
from kdcache.pipelines.verify.stage import verify
from kdcache.store.store import Store
from kdcache.views.scan import scan_samples
from kdcache.whole_store.diff import diff_stores
from kdcache.whole_store.recode import recode_store
from kdcache.whole_store.recode_plan import Narrowing
from kdcache.whole_store.stats import store_stats
from tests.kits.captured import C, known_rows, write_plain
from tests.kits.texts import TEXT, VOCABULARY, Library, write_tokenizer
from tests.pipelines.test_sweep import toml


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


def test_prompts_and_padding_are_no_answers_of_a_store(library: Library, tmp_path: Path) -> None:
    lines = [{"prompt": "the terms and conditions of", "completion": " this License"}] * 60
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, lines)))
    chats = {"data": f"text:{tmp_path / 'chats.jsonl'}"}
    for name, encoding in (("full", {"encoding": "full"}), ("top", {"top_k": 6})):
        extract(library.asked(tmp_path / f"{name}.kd", **chats, **encoding, min_accuracy=0.0))
    full, top = (Store.open(tmp_path / f"{name}.kd") for name in ("full", "top"))
    counted = int((full.labels >= 0).sum())
    assert 0 < counted < full.rows / 2
    stats = store_stats(full)
    assert (stats.rows, stats.struck) == (counted, full.rows - counted)
    difference = diff_stores(full, top).rows
    assert (difference.rows, difference.agreement) == (counted, 1.0)
    recode_store(str(tmp_path / "full.kd"), str(tmp_path / "recoded.kd"), Narrowing(top_k=6))
    means = (store.class_means(0) for store in (top, Store.open(tmp_path / "recoded.kd")))
    np.testing.assert_allclose(*means, atol=5e-3)  # the full store rounds to f16
    settings = {"store": str(tmp_path / "top.kd"), **library.source, **chats, "teacher": "tests.kits.texts:reader"}
    assert verify(
        VerifySettings.model_validate(settings | {"weights": library.weights, "rows": 64, "workers": 0})
    ).whole


def test_what_knows_pictures_alone_says_so(library: Library, tmp_path: Path) -> None:
    for part in ("0:100", "100:209"):
        source = library.source["data_set"] | {"range": part}
        extract(library.asked(tmp_path / f"{part[0]}.kd", data_set=source))
    stores = tuple(str(tmp_path / f"{name}.kd") for name in "01")
    with pytest.raises(InvalidInputError, match=r"stores of parts of a data set are joined for pictures alone"):
        train(library.student(tmp_path / "run", store=stores))
    asked = {"paths": [str(tmp_path / "run")], "store": (stores[0],)}
    with pytest.raises(InvalidInputError, match=r"holds texts of 32 tokens, and runs are compared on pictures"):
        HeldOut(CompareSettings.model_construct(**asked, view=None, device="cpu", data=""), [Store.open(stores[0])])
    other = write_tokenizer(tmp_path / "other.json", VOCABULARY)
    rules = json.loads(other.read_text())
    rules["model"]["merges"] = rules["model"]["merges"][:-1]  # the same ids, and other cuts
    other.write_text(json.dumps(rules))
    with pytest.raises(InvalidInputError, match=r"ids mean other words; name the same tokenizer"):
        train(library.student(tmp_path / "run", val_set={"tokenizer": str(other), "range": "0:10"}))
    scan = scan_samples(library.data, workers=0)
    assert (scan.rows, scan.bad) == (len(library.data), ())


def test_a_sweep_on_texts_tells_perplexities(
    library: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = library.student(tmp_path / "run", epochs=1, val_set={"range": "0:10"}).as_recorded(without={"run"})
    base = {name: value for name, value in settings.items() if value not in (None, "", [], {})}
    path = tmp_path / "sweep.toml"
    lines = [f"{name} = {toml(value)}" for name, value in base.items() if name != "lr"]
    path.write_text("\n".join([f"folder = '{tmp_path}/out'", "[base]", *lines, "[grid]", "lr = [0.01, 0.02]"]))
    with pytest.raises(SystemExit) as left:
        main(["sweep", str(path)])
    assert left.value.code == 0
    printed = "".join(capsys.readouterr())
    assert "perplexity" in printed
    assert "kdcache compare" not in printed
    with (tmp_path / "out/results.csv").open(newline="") as file:
        perplexities = [float(line["perplexity"]) for line in csv.DictReader(file)]
    assert all(1 < perplexity < VOCABULARY for perplexity in perplexities)


def test_an_imported_store_teaches_the_data_it_is_of(tmp_path: Path) -> None:
    rows = known_rows()
    import_store(
        [str(write_plain(tmp_path / "rows.parquet", rows))], str(tmp_path / "a.kd"), layout="distillkit",
        teacher="made-up", settings=ImportSettings(classes=C),
    )  # fmt: skip
    data = {"data": f"parquet:{tmp_path / 'rows.parquet'}", "data_set": {"column": "input_ids"}, "workers": 0}
    student = {"student": "tests.kits.texts:reader", "student_set": {"num_classes": C, "width": 12}}
    taught = {"store": (str(tmp_path / "a.kd"),), "temperature": 1.0, "optimizer": "adamw", "lr": 0.05, "batch_size": 2}
    settings = {"run": str(tmp_path / "run"), **data, **student, **taught, "epochs": 6, "val_set": {"range": "0:2"}}
    summary = train(TrainSettings.model_validate(settings))
    metrics = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert summary.validation["perplexity"] < C
    with pytest.raises(InvalidInputError, match=r"known at T = 1 alone"):
        train(TrainSettings.model_validate(settings | {"run": str(tmp_path / "hot"), "temperature": 2.0}))
