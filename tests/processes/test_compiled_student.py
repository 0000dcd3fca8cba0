"""A student that torch.compile compiled is the same student, by a real compiler."""

import os
import subprocess
import sys
from pathlib import Path

from kdcache.pipelines.extract.stage import extract
from tests.kits import stages
from tests.kits.house import ROOT
from tests.kits.stages import Stage
from tests.pipelines.test_train_steps import distance, trained

stage = stages.stage


def test_a_compiled_student_is_the_same_student(stage: Stage, tmp_path: Path) -> None:
    settings = {"store": (stage.store,), "student_set": {"width": 4}, "lr": 0.02, "ema": 0.5}
    settings |= {"val_set": {"split": "test", "limit": 200}}  # which compiles the network's other mode too
    plain = trained(tmp_path / "plain", **settings)
    compiled = trained(tmp_path / "compiled", **settings, compile=True)
    other = trained(tmp_path / "other", **settings, seed=1)
    assert compiled.keys() == plain.keys()
    assert distance(plain, compiled) < 1e-2 * distance(plain, other)


def test_what_was_compiled_without_taps_is_not_taken_with_them(stage: Stage, tmp_path: Path) -> None:
    """Two trainings in one process: the second objective sees features of the student, by hooks on its layers."""
    store = tmp_path / "kept.kd"
    extract(stage.asked(store, views="1", keep=("features",)))
    settings = {"store": (str(store),), "student_set": {"width": 4}, "lr": 0.02}
    trained(tmp_path / "kd", **settings, compile=True)
    crd = {**settings, "objective": "crd", "set": {"negatives": 16}, "temperature": None}
    plain, compiled = (trained(tmp_path / f"crd {way}", **crd, compile=way) for way in (False, True))
    assert distance(plain, compiled) < 0.1


def test_a_missing_compiler_is_named(tmp_path: Path) -> None:
    """In a process of its own: torch looks for the compiler once."""
    command = [sys.executable, "-m", "kdcache", "train", "run", "--student", "kdcache.networks:convnet", "--data"]
    command += ["digits", "--workers", "0", "--epochs", "1", "--compile"]
    environment = {**os.environ, "CXX": "no-such-compiler", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path / "cache")
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 2, process.stderr
    assert "error: --compile: torch.compile cannot compile the student" in process.stderr
    assert "Traceback" not in process.stderr
