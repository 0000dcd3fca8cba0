"""The benchmark of sweeps at toy sizes: every figure is there, and the picture is drawn."""

import json
from pathlib import Path

import pytest

from tests.benchmarks import sweeps


def test_a_toy_study_has_every_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "COUNTS", (1, 2, 3, 4, 6))
    sizes = {
        "rows": 128,
        "views": 2,
        "epochs": 2,
        "teacher-rows": 900,
        "teacher-epochs": 3,
        "teacher-width": 4,
        "test-rows": 300,
    }
    sizes |= {"whole": 2, "photographs": 128, "side": 32, "trials": 1}
    flags = [each for name, value in sizes.items() for each in (f"--{name}", str(value))]
    study = sweeps.main(["--data", "digits", "--out", str(tmp_path), *flags])
    assert study == json.loads((tmp_path / "sweep_total_time.json").read_text())
    assert (tmp_path / "sweep_total_time.png").read_bytes()[:4] == b"\x89PNG"
    found = study["total_seconds"]
    assert [row["n"] for row in found["totals"]] == [1, 2, 3, 4, 6]
    assert [row["whole"] for row in found["totals"]] == [True, True, False, False, False]
    for row in found["totals"]:
        assert row["store_together"] > found["extract"]
    assert found["totals"][4]["live"] == pytest.approx(6 * found["student_with_teacher"]["median"])
    for side in study["side_by_side"].values():
        assert side["times_one"]["1"] == 1.0
        assert side["times_one"].keys() == {"1", "2", "4", "8"}
    assert study["parameters"]["student"] == 94_186
    assert "FOLDER" not in study["command"]
