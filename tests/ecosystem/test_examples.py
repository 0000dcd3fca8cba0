"""Every file of docs/examples that trains: it learns, and a run that was stopped ends as one that was not."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kdcache.pipelines.extract.stage import extract
from tests.kits import stages
from tests.kits.house import ROOT
from tests.kits.stages import Stage
from tests.kits.texts import SEQUENCE, TEXT, Library

stage = stages.stage

EXAMPLES = ROOT / "docs/examples"
ON_TEXT = ("text_plain", "text_hf_trainer")
LOOPS = ("plain", "fabric_loop", "accelerate_loop", "timm_loop", "lightning_trainer", "hf_trainer")
EPOCHS = {"timm_loop": 4}  # which warms up for one


@pytest.fixture(scope="module")
def store(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the training digits, as a user of the examples has one."""
    path = tmp_path_factory.mktemp("examples") / "digits.kd"
    extract(stage.asked(path, data_set={}, views="2"))
    return path


def run(name: str, store: Path, folder: Path, *more: str) -> float:
    """The accuracy that an example prints at its end."""
    words = ["--store", str(store), "--data", "digits", "--folder", str(folder), "--epochs", str(EPOCHS.get(name, 2))]
    process = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *words, "--workers", "0", *more],
        cwd=folder.parent, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    return float(re.findall(r"accuracy (\d\.\d+)", process.stdout)[-1])


@pytest.mark.parametrize("name", LOOPS)
def test_an_example_learns_and_goes_on_where_it_stopped(name: str, store: Path, tmp_path: Path) -> None:
    whole = run(name, store, tmp_path / "whole")
    assert whole > 0.15  # of ten classes
    run(name, store, tmp_path / "run", "--stop-after", "1")
    assert run(name, store, tmp_path / "run") == whole


@pytest.mark.parametrize("name", ON_TEXT)
def test_an_example_on_texts_learns(name: str, tmp_path: Path) -> None:
    library = Library(tmp_path)
    extract(library.asked(tmp_path / "licence.kd"))
    words = ["--store", "licence.kd", "--data", f"text:{TEXT}", "--tokenizer", str(library.tokenizer)]
    words += ["--sequence", str(SEQUENCE), "--epochs", "4", *(["--folder", "run"] if name != "text_plain" else [])]
    process = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *words],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    if name == "text_plain":
        first, *_, last = map(float, re.findall(r"perplexity (\d+\.\d)", process.stdout))
    else:
        first, last = map(float, re.findall(r"loss (\S+) at first, (\S+) at last", process.stdout)[0])
    assert last < 0.9 * first


def test_every_example_is_tried() -> None:
    named = {path.stem for path in EXAMPLES.glob("*.py")}
    assert named == {*LOOPS, *ON_TEXT, "open_clip_zero_shot"}  # the last is run by tests/ecosystem/teachers


def test_an_example_compiles(store: Path, tmp_path: Path) -> None:
    assert run("plain", store, tmp_path / "run", "--compile", "--stop-after", "1") > 0.1
