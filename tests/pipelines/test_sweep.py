"""sweep: every point a run of its own, done ones skipped, failures apart, and refusals before any work."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from kdcache.base.progress import StopRequest
from kdcache.errors import InterruptedRunError, InvalidInputError, KdcacheError, MismatchError
from kdcache.pipelines.sweep.result_table import SweepState
from kdcache.pipelines.sweep.space import load_sweep, points_of
from kdcache.pipelines.sweep.stage import SweepSummary, sweep
from kdcache.pipelines.train.stage import train
from tests.cli.test_cli import Capture, answer, kdcache, refusal
from tests.kits import stages
from tests.kits.stages import NETWORK, Stage, metrics, student, weights_of

stage = stages.stage

BASE: dict[str, Any] = {
    "student": NETWORK, "student_set": {"width": 2}, "data": "digits", "data_set": {"limit": 300}, "workers": 0,
    "epochs": 2, "batch_size": 64, "temperature": 2.0, "val_set": {"split": "test", "limit": 100},
}  # fmt: skip


def toml(value: Any) -> str:
    """A value as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {toml(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def written(folder: Path, text: str = "", base: dict[str, Any] | None = None, **parts: dict[str, Any]) -> Path:
    """A sweep's file whose folder is `folder/out`."""
    lines = [f"folder = {toml(str(folder / 'out'))}", text]
    for name, table in {"base": {**BASE, **(base or {})}, **parts}.items():
        lines += [f"[{name}]", *(f"{json.dumps(key)} = {toml(value)}" for key, value in table.items())]
    path = folder / "sweep.toml"
    folder.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def rows(summary: SweepSummary) -> list[dict[str, str]]:
    with open(summary.results, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def grid(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SweepSummary, list[SweepState]]:
    """Twelve points, four together, one of which fails."""
    folder = tmp_path_factory.mktemp("grid")
    path = written(
        folder,
        base={"store": stage.store},
        grid={"lr": [0.05, 0.1], "top_k": [1, 2, 3], "views": [1, 2]},
    )
    seen: list[SweepState] = []
    return path, sweep(path, together=4, report=seen.append), seen


def test_each_point_is_what_a_run_of_its_own_writes(
    stage: Stage, tmp_path: Path, grid: tuple[Path, SweepSummary, list[SweepState]]
) -> None:
    _, summary, _ = grid
    assert (summary.points, summary.done, summary.failed, summary.present) == (12, 12, 0, 0)
    assert summary.note == "12 points in 4 groups: only students of equal views share a stream"
    chosen = next(row for row in summary.rows if row.swept == {"lr": 0.1, "top_k": 2, "views": 1})
    own = student(tmp_path / "own", **{**BASE, "store": (stage.store,), "lr": 0.1, "top_k": 2, "views": 1})
    train(own)
    run = Path(summary.folder) / chosen.point
    assert chosen.point.startswith("lr=0.1,top_k=2,views=1-")
    assert weights_of(run) == weights_of(tmp_path / "own")
    assert metrics(run) == metrics(tmp_path / "own")
    assert (run / "settings.json").read_bytes() == (tmp_path / "own/settings.json").read_bytes()


def test_results_have_a_line_a_point(grid: tuple[Path, SweepSummary, list[SweepState]]) -> None:
    _, summary, seen = grid
    found = rows(summary)
    assert [row["point"] for row in found] == [row.point for row in summary.rows]
    assert {(row["lr"], row["top_k"], row["views"]) for row in found} == {
        (lr, k, v) for lr in ("0.05", "0.1") for k in "123" for v in "12"
    }
    for row in found:
        line = metrics(Path(summary.folder) / row["point"])[-1]
        assert float(row["accuracy"]) == pytest.approx(line["accuracy"], rel=1e-5)
        assert float(row["loss"]) == pytest.approx(line["loss"], rel=1e-5)
        assert (row["status"], row["epochs"], row["used_views"]) == ("done", "2", row["views"])
    sizes = {row["top_k"]: float(row["bytes_a_row"]) for row in found}
    assert sizes["1"] < sizes["2"] < sizes["3"]
    shares = [standing.share for standing in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert any(standing.eta for standing in seen)


def test_done_points_are_skipped_and_a_lost_one_is_trained_again(
    grid: tuple[Path, SweepSummary, list[SweepState]],
) -> None:
    path, first, _ = grid
    seen: list[SweepState] = []
    again = sweep(path, together=4, report=seen.append)
    assert (again.present, again.done) == (12, 12)
    assert [row.model_dump() for row in again.rows] == [row.model_dump() for row in first.rows]
    lost = Path(first.folder) / first.rows[5].point
    kept = weights_of(lost)
    for each in sorted(lost.rglob("*"), reverse=True):
        each.rmdir() if each.is_dir() else each.unlink()
    assert sweep(path).present == 11
    assert weights_of(lost) == kept


def test_a_stopped_sweep_goes_on_and_ends_equal(stage: Stage, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "base": {"store": stage.store},
        "grid": {"lr": [0.05, 0.1, 0.2], "tail": ["uniform", "none"]},
    }
    whole = sweep(written(tmp_path / "whole", **given))
    path = written(tmp_path / "cut", **given)
    for number in (3, 9):
        stop, calls = StopRequest(), [0]

        def report(
            standing: SweepState, stop: StopRequest = stop, calls: list[int] = calls, number: int = number
        ) -> None:
            calls[0] += 1
            stop.requested |= calls[0] >= number

        with pytest.raises(InterruptedRunError, match="of 6 points are done; run the same command again to go on"):
            sweep(path, together=2, report=report, stop=stop)
    ended = sweep(path, together=3)
    assert ended.done == 6
    for one, other in zip(ended.rows, whole.rows, strict=True):
        assert one.point == other.point
        assert weights_of(Path(ended.folder) / one.point) == weights_of(Path(whole.folder) / other.point)
        assert metrics(Path(ended.folder) / one.point) == metrics(Path(whole.folder) / other.point)


def test_failures_stop_nothing_and_exit_1_with_their_errors(stage: Stage, tmp_path: Path, capsys: Capture) -> None:
    path = written(
        tmp_path,
        grid={"student": [NETWORK, "tests.kits.together_students:exploding"], "lr": [0.05, 0.1]},
        base={"student_set": {}, "store": stage.store},
    )
    assert kdcache("sweep", path, "--together", 4) == 1
    out, err = capsys.readouterr()
    assert "2 of 4 are done, 2 failed" in out
    assert err.count("the loss is nan at epoch 1, step 5") == 4  # as they fail, and at the end
    assert kdcache("sweep", path, "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["done"], said["present"], said["failed"]) == (2, 2, 2)
    assert [row["status"] for row in said["rows"]] == ["done", "done", "failed", "failed"]


def test_random_trials_are_drawn_once_and_for_all_and_cross_a_grid(tmp_path: Path, capsys: Capture) -> None:
    space = {
        "lr": {"loguniform": [0.01, 0.1]},
        "momentum": {"uniform": [0.5, 0.9]},
        "student_set.width": {"int": [2, 3]},
    }
    path = written(
        tmp_path, base={"temperature": {}}, random={"trials": 2, "seed": 3, "space": space}, grid={"seed": [0, 1]}
    )
    path.write_text(path.read_text().replace('"temperature" = {}\n', ""))
    said = answer(capsys, "sweep", path)
    assert said["points"] == said["done"] == 4
    for row in said["rows"]:
        assert 0.01 <= row["swept"]["lr"] <= 0.1
        assert 0.5 <= row["swept"]["momentum"] <= 0.9
        assert row["swept"]["student_set.width"] in (2, 3)
        assert row["bytes_a_row"] is None
    assert len({row["swept"]["lr"] for row in said["rows"]}) == 2
    assert answer(capsys, "sweep", path)["present"] == 4


def test_random_trials_are_those_of_sweeps_on_disk(tmp_path: Path) -> None:
    """Names of points follow from what is drawn: other draws would begin a sweep that stands anew."""
    space = {
        "lr": {"loguniform": [0.01, 0.1]},
        "momentum": {"uniform": [0.5, 0.9]},
        "student_set.width": {"int": [2, 9]},
        "batch_size": {"choice": [32, 64, 128]},
    }
    path = written(tmp_path, random={"trials": 2, "seed": 3, "space": space})
    assert [tuple(point.swept.values()) for point in points_of(load_sweep(path), tmp_path)] == [
        (0.0172968, 0.717692, 7, 128),
        (0.0297888, 0.732341, 2, 64),
    ]


def test_a_study_goes_on_where_it_was_killed(stage: Stage, tmp_path: Path) -> None:
    space = {"lr": {"loguniform": [0.01, 0.2]}, "tail": {"choice": ["uniform", "none"]}, "top_k": {"int": [1, 3]}}
    search = {"trials": 5, "seed": 1, "metric": "nll", "direction": "minimize", "space": space}
    path = written(tmp_path, base={"store": stage.store, "epochs": 1}, study=search)
    stop = StopRequest()

    def report(standing: SweepState) -> None:
        stop.requested |= sum(result.status == "done" for result in standing.results) >= 2

    with pytest.raises(InterruptedRunError):
        sweep(path, report=report, stop=stop)
    summary = sweep(path, together=2)
    assert (summary.points, summary.done, summary.failed) == (5, 5, 0)
    assert summary.present in (1, 2)
    assert summary.best == min(summary.rows, key=lambda row: row.nll or 9e9).point
    again = sweep(path)
    assert (again.present, again.best, len(again.rows)) == (5, summary.best, 5)
    before = (tmp_path / "out/sweep.toml").read_bytes()
    with pytest.raises(MismatchError, match="direction: the study has minimize, the file has maximize"):
        sweep(written(tmp_path, base={"store": stage.store}, study={**search, "direction": "maximize"}))
    assert (tmp_path / "out/sweep.toml").read_bytes() == before


def test_a_trial_that_combines_to_something_impossible_fails_alone(stage: Stage, tmp_path: Path) -> None:
    space = {"epochs": {"choice": [3, 2]}, "kd_epochs": {"choice": [1, 2]}}
    path = written(
        tmp_path / "b", base={"store": stage.store}, study={"trials": 8, "sampler": "random", "space": space}
    )
    summary = sweep(path)
    failed = [row for row in summary.rows if row.status == "failed"]
    assert [row.swept for row in failed] == [{"epochs": 2, "kd_epochs": 2}]
    assert "--kd-epochs names epoch 2, the run has 2" in str(failed[0].error)
    assert summary.done == summary.points - 1 > 0
    assert sweep(path).failed == 1


def test_without_optuna_a_study_says_what_to_install(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    path = written(tmp_path, base={"store": stage.store}, study={"trials": 1, "space": {"lr": {"uniform": [0.1, 0.2]}}})
    with pytest.raises(InvalidInputError, match=r"pip install 'kdcache\[optuna\]'"):
        sweep(path)


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "key": ({"text": "fold = 1", "grid": {"lr": [1]}}, "unknown keys fold; the known ones are base, folder, grid, ra"),
    "base": ({"base": {"rate": 1}, "grid": {"lr": [1]}}, r"\[base\] of .*: unknown settings rate; the known .* lr"),
    "grid": ({"grid": {"rate": [1]}}, "sweeps rate, which no point has; it can sweep .*lr.*views, .*set.KEY"),
    "argument": ({"grid": {"lr.a": [1]}}, "sweeps lr.a, which no point has"),
    "search": ({"random": {"tries": 2}}, r"\[random\] of .*: unknown keys tries; .* seed, space, trials"),
    "distribution": (
        {"random": {"trials": 1, "space": {"lr": {"normal": [0, 1]}}}},
        "space lr of .* is normal; give one of choice, int, loguniform, uniform",
    ),
    "bounds": ({"random": {"trials": 1, "space": {"lr": {"loguniform": [0, 1]}}}}, "it must begin above 0"),
    "value": ({"grid": {"lr": [0.1, -1]}}, "the point with lr -1: .*give a number above 0"),
    "twice": ({"grid": {"lr": [0.1, 0.1]}}, "lists a value of lr twice"),
    "nothing": ({}, r"sweeps nothing; give \[grid\], \[random\] or \[study\]"),
    "classes": ({"grid": {"student_set.num_classes": [10, 7]}}, "num_classes=7-.*: the student answers 7 classes"),
    "views": (
        {"grid": {"views": [1, 9]}},
        r"point .*: views 0:9 were asked for; the stores have \[0, 1\] in common, not \[2, ",
    ),
    "k": ({"grid": {"top_k": [3, 4]}}, "top-k 4 was asked for; .* keeps 3 classes"),
    "objective": ({"grid": {"set.beta": [1]}}, "beta"),
    "store": ({"grid": {"store": ["nowhere.kd"]}}, "nowhere.kd"),
    "metric": (
        {"base": {"val_set": {}}, "study": {"trials": 1, "space": {"lr": {"uniform": [0.1, 1]}}}},
        "metric accuracy is not measured",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_faults_are_told_before_any_work(stage: Stage, tmp_path: Path, name: str) -> None:
    given, message = REFUSALS[name]
    path = written(tmp_path, **{**given, "base": {"store": stage.store, **given.get("base", {})}})
    with pytest.raises(KdcacheError, match=message):
        sweep(path)
    assert not (tmp_path / "out").exists()


def test_refusals_of_the_command_line(stage: Stage, tmp_path: Path, capsys: Capture) -> None:
    path = written(tmp_path, base={"store": stage.store}, grid={"lr": [0.1]})
    assert "Input should be 'local' or 'dask' (given 'slurm')" in refusal(capsys, "sweep", path, "--engine", "slurm")
    assert "dask_workers is 2 without --engine dask" in refusal(capsys, "sweep", path, "--dask-workers", 2)
    assert "holds no sweep; choose another folder" in refusal(capsys, "sweep", path, "--folder", stage.folder)
    assert "cannot be read" in refusal(capsys, "sweep", tmp_path / "missing.toml")


def test_other_data_in_a_point_s_folder_is_refused_before_any_work(stage: Stage, tmp_path: Path) -> None:
    path = written(tmp_path, base={"store": stage.store, "epochs": 1}, grid={"lr": [0.05, 0.1]})
    summary = sweep(path)
    settings = Path(summary.folder) / summary.rows[1].point / "settings.json"
    settings.write_text(settings.read_text().replace('"momentum": 0.9', '"momentum": 0.8'))
    with pytest.raises(MismatchError, match=r"(?s)point lr=0.1-.*momentum: the run has 0.8, this run has 0.9"):
        sweep(path)
