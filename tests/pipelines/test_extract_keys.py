"""extract and keys of the manifest: a new store has blocks by rule 2, one that stands keeps its rule and its map."""

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from kdcache.errors import InterruptedRunError, InvalidInputError, MismatchError
from kdcache.labels import encodings
from kdcache.pipelines.extract.dry_run import estimate
from kdcache.pipelines.extract.open_job import open_job
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.verify.settings import VerifySettings
from kdcache.pipelines.verify.stage import verify
from kdcache.sharing.cards import readme
from kdcache.store.inspection import describe_store
from kdcache.store.manifest import Identity
from kdcache.store.store import Store
from kdcache.whole_store.recode import recode_store
from kdcache.whole_store.recode_plan import Narrowing
from kdcache.whole_store.stats import store_stats
from tests.kits import stages
from tests.kits.stages import ROWS, Stage, committed
from tests.kits.stores import all_files

stage = stages.stage

CLASS_MAP = (1, 0, 2, 3, 4, 5, 6, 7, 8, -1)  # of ten digits: nobody answers 9


@pytest.fixture
def rule_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """As outside of the tests."""
    monkeypatch.setattr(encodings, "BLOCK_RULE", 2)


def blocks(path: str | Path) -> list[tuple[int, int]]:
    """Rule and positions of a block, by segment."""
    store = Store.open(path)
    return [(store.identity.encoding.block_rule, segment.layout.block) for segment in store.segments]


@pytest.mark.usefixtures("rule_2")
def test_a_new_store_has_blocks_by_rule_2_and_later_passes_too(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "new.kd"
    stop, progress = stages.stop_after(4)
    settings = stage.asked(path, views="32")
    with pytest.raises(InterruptedRunError, match="run the same command again"):
        extract(settings, progress=progress, stop=stop)
    assert 0 < committed(path) < 5  # 64 positions of 32 views are 2,048 rows
    assert extract(settings).blocks_done_before > 0
    extract(stage.asked(path, views="32:34"))
    assert blocks(path) == [(2, 64), (2, 512)]
    straight = extract(stage.asked(tmp_path / "straight.kd", views="32"))
    first = all_files(Path(straight.store))
    assert {name: all_files(path)[name] for name in first if "views-" in name} == {
        name: data for name, data in first.items() if "views-" in name
    }
    store, old = Store.open(path), Store.open(stage.store)
    for view in old.every_view:
        one, other = (each.read(view, np.arange(ROWS)) for each in (store, old))
        assert np.abs(one.log_probs(1.0) - other.log_probs(1.0)).max() < 0.1
        assert np.array_equal(one.top_class, other.top_class)


@pytest.mark.usefixtures("rule_2")
def test_a_store_of_rule_1_keeps_it_in_later_views_and_recodings(stage: Stage, tmp_path: Path) -> None:
    copy = stage.copy(tmp_path / "old.kd")
    extract(stage.asked(copy, views="2:4"))
    assert blocks(copy) == [(1, 64), (1, 64)]
    assert "block_rule" not in (copy / "kdcache/manifest.json").read_text()
    for name, rule in (("old", 1), ("full", 2)):
        if name == "full":
            extract(stage.asked(tmp_path / "full.kd", encoding="full"))
        out = recode_store(str(tmp_path / f"{name}.kd"), str(tmp_path / f"{name}-2.kd"), Narrowing(top_k=2)).out
        assert Store.open(out).identity.encoding.block_rule == rule


def test_another_rule_of_one_store_is_refused(stage: Stage, tmp_path: Path) -> None:
    """By what `Store.create` compares: extract itself takes the rule of the store that stands."""
    stages.begin(stage.asked(tmp_path / "a.kd"))
    job = open_job(stage.asked(tmp_path / "b.kd"))
    encoding = job.identity.encoding.model_copy(update={"block_rule": 2})
    other = job.identity.model_copy(update={"encoding": encoding})
    with pytest.raises(MismatchError, match=r"encoding\.block_rule.*nothing.*2"):
        Store.create(tmp_path / "a.kd", other, order=job.order, labels=job.labels, provenance=job.provenance)


def test_a_dry_run_counts_files_and_bytes_by_the_rule(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_rule_1 = estimate(stage.asked(tmp_path / "no.kd"))
    monkeypatch.setattr(encodings, "BLOCK_RULE", 2)
    by_rule_2 = estimate(stage.asked(tmp_path / "no.kd"))
    assert by_rule_1.files - by_rule_2.files == 4 * 7  # six shards and a commit of four blocks
    assert by_rule_2.bytes_a_row < by_rule_1.bytes_a_row
    assert [k.bytes_a_row for k in by_rule_2.by_k] < [k.bytes_a_row for k in by_rule_1.by_k]


def softmax(width: int, num_classes: int) -> nn.Module:
    """The convnet's probabilities."""
    return nn.Sequential(*stages.network(width, num_classes=num_classes).children(), nn.Softmax(dim=-1))


def mapped(identity: Identity, answers: str) -> Identity:
    """The identity of a store whose teacher has a class map."""
    keys = {"class_map": CLASS_MAP, "masked_classes": (9,), "answers": answers}
    return identity.model_copy(update={"teacher": identity.teacher.model_copy(update=keys)})


@pytest.mark.parametrize(("answers", "teacher"), [("logits", stages.NETWORK), ("probs", f"{__file__}:softmax")])
def test_passes_take_the_map_and_the_answers_of_the_store_that_stands(
    stage: Stage, tmp_path: Path, answers: str, teacher: str
) -> None:
    path = tmp_path / "a.kd"
    settings = stage.asked(path, teacher=teacher, min_accuracy=0.1, keep=() if answers == "probs" else ("head",))
    job = open_job(settings)
    Store.create(
        path, mapped(job.identity, answers), order=job.order, labels=job.labels, provenance=job.provenance,
        head={name: part[[1, 0, 2, 3, 4, 5, 6, 7, 8, 8]] * (np.arange(10) < 9).reshape(-1, *[1] * (part.ndim - 1))
              for name, part in job.head.items()},
    )  # fmt: skip
    summary = extract(settings)
    store, straight = Store.open(path), Store.open(stage.store)
    assert not summary.blocks_done_before
    soft, other = (each.read(1, np.arange(ROWS)) for each in (store, straight))
    renamed = np.array([1, 0, 2, 3, 4, 5, 6, 7, 8, 9])[np.asarray(other.top_class)]
    known = renamed != 9
    assert known.sum() > 200
    assert np.array_equal(np.asarray(soft.top_class)[known], renamed[known])
    assert not (np.asarray(soft.classes) == 9).any()
    asked = VerifySettings(
        store=str(path), data="digits", data_set={"limit": ROWS}, workers=0,
        teacher=teacher, teacher_set={"width": 8}, weights=stage.weights,
    )  # fmt: skip
    checks = {check.name: check for check in verify(asked).checks}
    assert all(check.passed for check in checks.values())
    assert "teacher answers" in checks
    fields = describe_store(store)
    assert fields["class_map"] == "9 of the network's 10 classes"
    assert fields.get("teacher_answers") == ("probs" if answers == "probs" else None)
    assert "| class map | 9 of the network's 10 classes |" in readme(store)
    assert store_stats(store).classes == 10
    assert "class_map" not in describe_store(straight)


def test_a_map_that_another_store_has_is_not_taken(stage: Stage, tmp_path: Path) -> None:
    """A network without the map's classes is refused by both numbers."""
    path = tmp_path / "a.kd"
    settings = stage.asked(path, teacher_set={"width": 8, "num_classes": 10})
    job = open_job(settings)
    keys = {"class_map": (*CLASS_MAP, -1), "masked_classes": (9,)}
    identity = job.identity.model_copy(update={"teacher": job.identity.teacher.model_copy(update=keys)})
    Store.create(path, identity, order=job.order, labels=job.labels, provenance=job.provenance)
    with pytest.raises(InvalidInputError, match="class map has 11 entries, the network answered 10 classes"):
        extract(settings)
    assert committed(path) == 0
