"""`compare` on real runs: its measures are those of the training's own validation, and what does not fit is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from kdcache.cli.app import main
from kdcache.errors import InvalidInputError
from kdcache.pipelines.compare.settings import CompareSettings
from kdcache.pipelines.compare.stage import compare, names_of
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.sweep.stage import sweep
from kdcache.pipelines.train.stage import train
from kdcache.store.store import Store
from kdcache.views.sources import open_data
from tests.kits import stages
from tests.kits.compared import CLEAN, TEST, Bench
from tests.kits.stages import Stage, student

stage = stages.stage


@pytest.fixture(scope="module")
def bench(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(stage, tmp_path_factory.mktemp("bench"))


def test_its_measures_are_those_of_the_training_s_validation(bench: Bench) -> None:
    found = bench.compare(*(f"{run}@last" for run in bench.runs))
    assert [(group.name, len(group.members)) for group in found.groups] == [("kd", 2), ("dkd", 2)]
    for member, run in zip((m for group in found.groups for m in group.members), bench.runs, strict=True):
        line = json.loads((Path(run) / "metrics.jsonl").read_text().splitlines()[-1])
        for name in ("accuracy", "nll", "ece", "agreement", "kl_to_teacher"):
            assert member.measures[name].value == pytest.approx(line[name], rel=1e-4, abs=1e-6), name
        hits = member.answers.decisions == found.labels
        assert hits.mean() == pytest.approx(line["accuracy"])
        agrees = member.answers.decisions == found.teacher.decisions
        assert agrees.mean() == pytest.approx(line["agreement"])
    assert found.intervals == "seeds"
    assert not found.warnings
    assert len(found.sample_ids) == len(found.labels) == 150
    held = Store.open(bench.folder / "held.kd")
    data = open_data("digits", TEST)
    labels = dict(zip(map(str, data.ids), data.labels.tolist(), strict=True))
    assert dict(zip(found.sample_ids, found.labels.tolist(), strict=True)) == labels
    position_of = {str(data.ids[index]): position for position, index in enumerate(held.order.tolist())}
    positions = [position_of[sample] for sample in found.sample_ids]
    np.testing.assert_array_equal(found.teacher.decisions, held.read(0, positions).top_class)


def test_the_order_in_which_runs_are_asked_changes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory holds one network at a time, each is asked in a pass of its own."""
    together = bench.compare()
    monkeypatch.setattr("kdcache.pipelines.compare.held_out.NETWORK_BYTES", 1)
    apart = bench.compare(*reversed(bench.runs), baseline=bench.runs[0])
    values = [
        {member.place: {name: value.value for name, value in member.measures.items()} for member in group.members}
        for found in (together, apart)
        for group in found.groups
    ]
    assert {**values[0], **values[1]} == {**values[2], **values[3]}


def test_a_sweep_is_its_runs_that_have_ended(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text(
        f'[base]\nstudent = "kdcache.networks:convnet"\nstudent_set = {{width = 4}}\ndata = "digits"\n'
        f'data_set = {{limit = 300}}\nstore = "{bench.stage.store}"\nepochs = 1\nworkers = 0\ndevice = "cpu"\n'
        "[grid]\nlr = [0.1, 0.05]\nseed = [0, 1]\n"
    )
    sweep(tmp_path / "sweep.toml", folder=str(tmp_path / "sweep"))
    found = bench.compare(str(tmp_path / "sweep"))
    assert sorted(group.name for group in found.groups) == ["lr 0.05", "lr 0.1"]
    assert all(member.bytes_a_row for group in found.groups for member in group.members)
    with pytest.raises(InvalidInputError, match="was not validated"):  # and not that a store is needed
        compare(CompareSettings.model_validate({"runs": str(tmp_path / "sweep")}))
    text = (
        (tmp_path / "sweep/sweep.toml")
        .read_text()
        .replace(
            "[grid]", f'val_set = {{split = "test", limit = 150}}\nval_store = "{bench.folder / "held.kd"}"\n[grid]'
        )
    )
    (tmp_path / "sweep/sweep.toml").write_text(text)
    by_file = compare(CompareSettings.model_validate({"runs": str(tmp_path / "sweep"), "workers": 0, "device": "cpu"}))
    assert [group.cells for group in by_file.groups] == [group.cells for group in found.groups]
    unfinished = sorted((tmp_path / "sweep").glob("lr=*"))[0]
    (unfinished / "metrics.jsonl").write_text("")
    found = bench.compare(str(tmp_path / "sweep"))
    assert sum(len(group.members) for group in found.groups) == 3
    assert any(str(unfinished) in note and "left out" in note for note in found.notes)


def test_stores_stand_where_runs_stand(bench: Bench, tmp_path: Path) -> None:
    """The teacher itself, and the same teacher's store in another order."""
    turned = tmp_path / "turned.kd"
    extract(bench.stage.asked(turned, data_set=TEST, seed=5, **CLEAN))
    found = bench.compare(str(turned), bench.runs[0], str(bench.folder / "other.kd"))
    same, _, other = (group.members[0] for group in found.groups)
    assert (same.kind, same.measures["agreement"].value) == ("store", 1.0)
    assert same.measures["kl_to_teacher"].value < 1e-3
    assert other.measures["agreement"].value < 0.5
    alone = bench.compare(str(turned), data="")
    assert alone.groups[0].members[0].measures["agreement"].value == 1.0
    assert any("keeps some classes" in note for note in found.notes)


def test_further_stores_are_further_teachers(bench: Bench) -> None:
    """The fidelity gap is what the agreement with the own teacher is above that with another one."""
    stores = (str(bench.folder / "held.kd"), str(bench.folder / "other.kd"))
    found = bench.compare(bench.runs[0], store=stores)
    measures = found.groups[0].members[0].measures
    other = bench.compare(bench.runs[0], store=stores[1:]).groups[0].members[0].measures["agreement"].value
    assert measures["agreement other"].value == pytest.approx(other)
    assert measures["fidelity_gap other"].value == pytest.approx(measures["agreement"].value - other)
    one = bench.compare(bench.runs[0], store=stores, combine="probabilities")
    assert "agreement other" not in one.measures
    assert one.teacher_name == "held + other"


def test_flips_are_from_the_baseline_s_run_of_the_same_seed(bench: Bench) -> None:
    kd, dkd = bench.compare().groups
    assert all("lost_to_baseline" not in member.measures for member in kd.members)
    labels = bench.compare().labels
    for member in dkd.members:
        other = next(each for each in kd.members if each.seed == member.seed)
        was_right, is_right = other.answers.decisions == labels, member.answers.decisions == labels
        assert member.measures["lost_to_baseline"].value == pytest.approx((was_right & ~is_right).mean())
        assert member.measures["won_from_baseline"].value == pytest.approx((~was_right & is_right).mean())
        lost, won = int((was_right & ~is_right).sum()), int((~was_right & is_right).sum())
        expected = stats.binomtest(lost, lost + won).pvalue if lost + won else 1.0
        assert member.measures["mcnemar_baseline"].value == pytest.approx(expected)


def test_further_measures_are_asked_for(bench: Bench, stage: Stage, tmp_path: Path) -> None:
    kept = tmp_path / "kept.kd"
    extract(stage.asked(kept, data_set=TEST, keep="features,head,tap:13", **CLEAN))
    also = ("cka", "attention_iou", "sharpness")
    measures = bench.compare(*bench.runs[:2], store=(str(kept),), also=also).groups[0].members[0].measures
    assert 0 < measures["cka"].value < 1
    assert 0 <= measures["attention_iou"].value <= 1
    assert measures["sharpness"].value > 0
    assert measures["parameters"].value > 0
    assert measures["macs"].value > measures["parameters"].value
    plain = bench.compare(bench.runs[0], store=(str(kept),)).groups[0].members[0].measures
    assert {"cka", "sharpness", "attention_iou"}.isdisjoint(plain)
    assert plain["accuracy"] == measures["accuracy"]
    for name, message in (("cka", "extract it with --keep features"), ("attention_iou", "--keep head,tap:LAYER")):
        with pytest.raises(InvalidInputError, match=message):
            bench.compare(also=(name,))


def test_without_a_store_runs_are_compared_by_their_own_validation(bench: Bench) -> None:
    found = compare(CompareSettings.model_validate({"runs": tuple(bench.runs)}))
    for group in found.groups:
        every = [
            list(map(json.loads, (Path(m.place) / "metrics.jsonl").read_text().splitlines())) for m in group.members
        ]
        lines = [max(each, key=lambda line: float(line["accuracy"])) for each in every]
        for name in ("accuracy", "nll", "agreement", "kl_to_teacher"):
            assert group.cells[name].mean == pytest.approx(np.mean([line[name] for line in lines]))
    assert found.intervals == "seeds"
    assert found.groups[1].differences["accuracy"].n == 2
    assert "own validation" in found.notes[-1]
    marked = compare(CompareSettings.model_validate({"runs": (f"{bench.runs[0]}@last",)}))
    line = json.loads((Path(bench.runs[0]) / "metrics.jsonl").read_text().splitlines()[-1])
    assert marked.groups[0].cells["accuracy"].mean == pytest.approx(line["accuracy"])
    other = bench.student("validated-on-others", seed=4).model_copy(update={"val_set": {"split": "test", "limit": 90}})
    train(other.model_copy(update={"val_store": ()}))
    unlike = compare(CompareSettings.model_validate({"runs": (bench.runs[0], other.run)}))
    assert any("VALIDATED ON UNLIKE ROWS" in warning for warning in unlike.warnings)
    plain = student(bench.folder / "plain", epochs=1)
    train(plain)
    with pytest.raises(InvalidInputError, match=r"plain was not validated.*--store.*--val-set"):
        compare(CompareSettings.model_validate({"runs": plain.run}))
    with pytest.raises(InvalidInputError, match="needs --store"):
        compare(CompareSettings.model_validate({"runs": str(bench.folder / "held.kd")}))


def test_names_are_as_short_as_tells_them_apart() -> None:
    assert names_of(["runs/a", "runs/b.kd"]) == ["a", "b"]
    assert names_of(["x/a", "y/a"]) == ["x/a", "y/a"]
    assert names_of(["runs/a", "runs/a@last", "runs/b"]) == ["a", "a@last", "b"]


def test_the_command_prints_a_table_json_and_a_page(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        "compare", *bench.runs, "--store", str(bench.folder / "held.kd"), "--data", "digits", "--data-set",
        "split=test", "--data-set", "limit=150", "--workers", "0", "--device", "cpu", "--baseline", bench.runs[2],
    ]  # fmt: skip
    for more in ([], ["--json", "--html", str(tmp_path / "report.html"), "--pictures", "3"]):
        with pytest.raises(SystemExit) as left:
            main([*given, *more])
        assert left.value.code == 0
        out = capsys.readouterr().out
        if not more:
            assert "150 rows of digits" in out
            assert "less dkd" in out
            assert "paired by seed" in out
    record = json.loads(out)
    text = Path(record["html"]).read_text()
    assert all(f"<bdi>{name}</bdi>" in text for name in ("kd", "dkd"))
    assert "held" in text
    assert text.count("data:image/png;base64,") == 3
    assert [group["name"] for group in record["groups"]] == ["kd", "dkd"]
    assert record["baseline"] == "dkd"
    assert record["measures"]["kl_to_teacher"] == {"unit": "nats", "exactness": "sketch"}
    members = record["groups"][0]["members"]
    mean = sum(member["measures"]["accuracy"] for member in members) / 2
    assert record["groups"][0]["measures"]["accuracy"]["mean"] == pytest.approx(mean)
    assert record["groups"][0]["minus_baseline"]["accuracy"]["n"] == 2
