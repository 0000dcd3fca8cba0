"""What `compare` holds against what: the right rows, views and runs, and a clear word for all others."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.errors import InvalidInputError, KdcacheError, MismatchError
from kdcache.pipelines.compare.members import of_sweep
from kdcache.pipelines.compare.settings import CompareSettings
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.train.stage import train
from kdcache.views.sources import open_data
from tests.kits import stages
from tests.kits.compared import CLEAN, TEST, Bench
from tests.kits.stages import Stage, student

stage = stages.stage

PLAIN: dict[str, Any] = {"teacher_set": {}, "weights": "", "top_k": 1}


@pytest.fixture(scope="module")
def bench(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(stage, tmp_path_factory.mktemp("bench"))


def test_the_training_rows_are_told_loudly(bench: Bench) -> None:
    found = bench.compare(store=(bench.stage.store,), data_set={"limit": 300})
    assert "THE ROWS ARE TRAINING ROWS of 4 of 4 runs" in found.warnings[0]


def test_training_rows_among_others_are_told_too(bench: Bench, stage: Stage, tmp_path: Path) -> None:
    """A part of the training's rows, and all of them with others."""
    for limit in (120, 400):
        data = {"limit": limit}
        extract(stage.asked(tmp_path / f"{limit}.kd", data_set=data, **CLEAN))
        found = bench.compare(bench.runs[0], store=(str(tmp_path / f"{limit}.kd"),), data_set=data)
        assert "THE ROWS ARE TRAINING ROWS of 1 of 1 runs" in found.warnings[0]


@pytest.mark.parametrize("labels", [{"groups": 5}, {"noise": 0.3, "noise_seed": 2}])
def test_training_rows_of_changed_labels_are_told_too(
    bench: Bench, stage: Stage, tmp_path: Path, labels: dict[str, Any]
) -> None:
    train(student(tmp_path / "run", data_set={"limit": 300, **labels}, epochs=1))
    data, place = {"limit": 120, **labels}, str(tmp_path / "part.kd")
    extract(stage.asked(place, teacher=f"run:{tmp_path / 'run'}", data_set=data, min_accuracy=0.0, **CLEAN, **PLAIN))
    found = bench.compare(str(tmp_path / "run"), store=(place,), data_set=data)
    assert "THE ROWS ARE TRAINING ROWS of 1 of 1 runs" in found.warnings[0]


def test_a_sweep_s_rows_are_those_of_its_validation(tmp_path: Path) -> None:
    base = 'data = "digits"\nval_store = ["held.kd"]\n'
    tables = "[base.data_set]\ngroups = 5\nlimit = 300\n[base.val_set]\nsplit = 'test'\n"
    (tmp_path / "sweep.toml").write_text(f"[base]\n{base}{tables}")
    found = of_sweep(CompareSettings(runs=(str(tmp_path),)))
    assert (found.store, found.data, found.data_set) == (("held.kd",), "digits", {"groups": 5, "split": "test"})


def test_rows_of_other_stores_are_never_taken_for_these(bench: Bench, stage: Stage, tmp_path: Path) -> None:
    """Of another order, of other rows of the same ids, of other views; further teachers and compared stores."""
    held, turned, trained = bench.folder / "held.kd", tmp_path / "turned.kd", tmp_path / "train.kd"
    extract(stage.asked(turned, data_set=TEST, seed=5, **CLEAN))
    extract(stage.asked(trained, data_set={"split": "train", "limit": 150}, **CLEAN))
    for data in ("digits", ""):
        with pytest.raises(MismatchError, match=r"turned.kd has another order"):
            bench.compare(str(held), store=(str(held), str(turned)), data=data)
        with pytest.raises(MismatchError, match=r"train.kd is of other rows"):
            bench.compare(str(held), store=(str(held), str(trained)), data=data)
    with pytest.raises(MismatchError, match=r"train.kd is of other rows than .*held.kd"):
        bench.compare(str(trained))
    with pytest.raises(MismatchError, match=r"held.kd"):
        bench.compare(str(held), data_set={"split": "train", "limit": 150})


def test_a_store_answers_for_the_view_that_is_compared(bench: Bench, stage: Stage, tmp_path: Path) -> None:
    for name in ("a", "b"):
        extract(stage.asked(tmp_path / f"{name}.kd", data_set=TEST, views="3"))
    found = bench.compare(str(tmp_path / "b.kd"), store=(str(tmp_path / "a.kd"),), view=2)
    assert found.groups[0].members[0].measures["agreement"].value == 1.0
    assert not any("other views" in note for note in found.notes)
    found = bench.compare(str(bench.folder / "held.kd"), store=(str(tmp_path / "a.kd"),), view=2)
    assert any("other views" in note for note in found.notes)


def test_mixed_views_are_refused(bench: Bench, stage: Stage, tmp_path: Path) -> None:
    extract(stage.asked(tmp_path / "mixed.kd", data_set=TEST, mix="mixup"))
    with pytest.raises(InvalidInputError, match=r"mixed.kd are mixed by mixup"):
        bench.compare(store=(str(tmp_path / "mixed.kd"),))
    with pytest.raises(InvalidInputError, match=r"mixed.kd are mixed by mixup"):
        bench.compare(str(tmp_path / "mixed.kd"))


def test_runs_of_other_normalisations_meet_the_same_rows(bench: Bench) -> None:
    other = bench.student("other-mean", mean=(0.1,), std=(0.7,), seed=3)
    train(other)
    found = bench.compare(f"{bench.runs[0]}@last", f"{other.run}@last")
    for group, run in zip(found.groups, (bench.runs[0], other.run), strict=True):
        line = json.loads((Path(run) / "metrics.jsonl").read_text().splitlines()[-1])
        assert group.members[0].measures["accuracy"].value == pytest.approx(line["accuracy"])
        assert (group.members[0].answers.decisions == found.labels).mean() == pytest.approx(line["accuracy"])
    assert found.intervals == "rows"
    cell = found.groups[0].cells["accuracy"]
    assert cell.low is not None
    assert cell.low < cell.mean


def test_what_runs_learned_from_sets_them_apart(bench: Bench) -> None:
    """Views by their numbers; kd by name or by default is one objective; what is empty is no setting."""
    for name, changes in (("first", {"views": "0:1"}), ("second", {"views": "1:2"}), ("named", {"objective": "kd"})):
        train(bench.student(f"learned-{name}", seed=0, **changes))
    train(bench.student("learned-default", seed=1))
    found = bench.compare(*(str(bench.folder / f"learned-{each}") for each in ("first", "second", "named", "default")))
    spans = [group.settings["training views"] for group in found.groups]
    assert spans == ["0:1", "1:2", "0:2"]
    assert [len(group.members) for group in found.groups] == [1, 1, 2]
    assert all("set" not in group.settings for group in found.groups)


def test_pictures_are_of_rows_that_flipped(bench: Bench) -> None:
    found, data = bench.compare(pictures=5), open_data("digits", TEST)
    assert 0 < len(found.pictures) <= 5
    for picture in found.pictures:
        hits = {name: decision == picture.label for name, decision in picture.decisions.items()}
        assert len(set(hits.values())) == 2
        row = found.sample_ids.index(picture.sample)
        assert found.labels[row] == picture.label
        assert picture.teacher == found.teacher.decisions[row]
        index = list(map(str, data.ids)).index(picture.sample)
        np.testing.assert_array_equal(
            picture.pixels, np.repeat(data.samples[index][0].numpy().transpose(1, 2, 0), 3, 2)
        )
    assert not bench.compare().pictures


def test_what_cannot_be_compared_is_refused(bench: Bench, tmp_path: Path, stage: Stage) -> None:
    cases: list[tuple[dict[str, Any], type[KdcacheError], str]] = [
        ({"data": ""}, InvalidInputError, r"is a run, which is asked about pictures; give --data"),
        ({"data_set": {"split": "test", "limit": 149}}, MismatchError, "rows"),
        ({"baseline": "nobody"}, InvalidInputError, r"--baseline nobody is not among what is compared: .*kd-0"),
        ({"by": "depth"}, InvalidInputError, "no run has a setting depth; those that differ are objective"),
        ({"view": 3}, InvalidInputError, "held.kd has no view 3; it has 0 to 0"),
        ({"store": ()}, InvalidInputError, "needs --store"),
    ]
    for changes, error, message in cases:
        with pytest.raises(error, match=message):
            bench.compare(**changes)
    with pytest.raises(InvalidInputError, match="named twice"):
        bench.compare(bench.runs[0], bench.runs[0])
    half = tmp_path / "half"
    shutil.copytree(bench.runs[0], half)
    (half / "metrics.jsonl").write_text((half / "metrics.jsonl").read_text().splitlines()[0] + "\n")
    with pytest.raises(InvalidInputError, match=r"has ended 1 of 2 epochs.*half@last"):
        bench.compare(str(half))
    shutil.copytree(bench.runs[0], tmp_path / "copy")
    with pytest.raises(InvalidInputError, match=r"kd-0 and .*copy have equal settings and the same seed 0"):
        bench.compare(bench.runs[0], str(tmp_path / "copy"))
    with pytest.raises(KdcacheError, match="nowhere"):
        bench.compare(str(tmp_path / "nowhere"))
