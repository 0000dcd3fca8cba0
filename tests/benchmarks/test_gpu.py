"""the GPU benchmark: it runs at toy size without a GPU, and never passes figures of a CPU off as those of a GPU."""

from pathlib import Path

import pytest
import torch

from tests.benchmarks.gpu import main


def test_it_runs_at_toy_size(capsys: pytest.CaptureFixture[str]) -> None:
    figures = main(["--toy", "--trials", "1"])
    assert [figure.name.partition(" /")[0] for figure in figures] == [
        "extract, views at hand", "extract", "checks before block 0", "normalising", "student step, kd on top 20",
        "epoch fed from a warm view cache", "epoch whose views are drawn",
    ]  # fmt: skip
    assert all(0 < figure.measured < 1000 for figure in figures)
    assert capsys.readouterr().out.count("not to be quoted") == len(figures)


def test_toy_figures_are_not_published(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--toy figures are not to be published"):
        main(["--toy", "--out", str(tmp_path / "gpu.json")])
    assert list(tmp_path.iterdir()) == []


def test_a_cpu_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device is here"):
        main(["--out", str(tmp_path / "gpu.json")])
    assert list(tmp_path.iterdir()) == []
