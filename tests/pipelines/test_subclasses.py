"""subclasses: teacher, store, students and comparisons whose logits are several a class; labels meet classes alone."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.errors import InvalidInputError
from kdcache.labels.reduction import class_logits
from kdcache.networks.build import build_network
from kdcache.networks.weights import load_weights
from kdcache.pipelines.compare.settings import CompareSettings
from kdcache.pipelines.compare.stage import compare
from kdcache.pipelines.extract.dry_run import estimate
from kdcache.pipelines.extract.report import ExtractSummary
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import ExtractSettings
from kdcache.pipelines.train.stage import train
from kdcache.pipelines.verify.settings import VerifySettings
from kdcache.pipelines.verify.stage import verify
from kdcache.sharing.croissant import croissant
from kdcache.store.inspection import describe_rows, describe_store
from kdcache.store.store import Store
from kdcache.training.loader import Loader
from kdcache.training.loader_options import LabelOptions
from kdcache.views.sources import open_data
from kdcache.whole_store.calibrate import fit_temperature
from kdcache.whole_store.confidence import class_margins, label_losses
from kdcache.whole_store.diff import diff_stores
from kdcache.whole_store.recode import recode_store
from kdcache.whole_store.recode_plan import Narrowing
from kdcache.whole_store.stats import store_stats
from tests.kits import stages
from tests.kits.stages import NETWORK, ROWS, Stage, student

stage = stages.stage

SUB, CLASSES = 3, 10
DIGITS: dict[str, Any] = {"data": "digits", "data_set": {"limit": ROWS}, "workers": 0}
TEST: dict[str, Any] = {"val_set": {"split": "test", "limit": 100}}

SEES = '''"""A term that knows the student's answers before it sees one."""


class Sees:
    def __init__(self, sizes):
        self.classes = sizes.classes

    def __call__(self, outputs, targets, batch):
        assert outputs.logits.shape[1] == self.classes
        return (outputs.logits - targets.logits()).square().mean()
'''


class Taught:
    """A teacher of three subclasses a digit, trained without a store, and its stores of training and test rows."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run, self.store, self.held_out = folder, folder / "t", folder / "a.kd", folder / "test.kd"
        learned = {"student_set": {"width": 8}, "epochs": 16, "lr": 0.1, "subclasses": SUB, "objective": "subclass"}
        self.trained = train(student(self.run, **learned, **TEST))
        self.extracted = self.ask(self.store)
        self.ask(self.held_out, data_set={"split": "test", "limit": 100})

    def ask(self, store: Path, **changes: Any) -> ExtractSummary:
        return extract(
            ExtractSettings.model_validate({"store": str(store), "teacher": f"run:{self.run}", **DIGITS, **changes})
        )


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    return Taught(tmp_path_factory.mktemp("subclasses"))


def probabilities(store: Path) -> Any:
    """[N, C] of the first view, from the stored array alone."""
    soft = Store.open(store).read(0, np.arange(Store.open(store).rows))
    logits = np.asarray(soft.logits, dtype=np.float64)
    assert logits.shape[1] == CLASSES * SUB
    sums = np.exp(logits).reshape(len(logits), CLASSES, SUB).sum(axis=2)
    return sums / sums.sum(axis=1, keepdims=True)


def test_a_run_carries_its_subclasses_into_its_store(taught: Taught) -> None:
    teacher = json.loads((taught.store / "kdcache/manifest.json").read_text())["identity"]["teacher"]
    assert (teacher["subclasses"], teacher["classes"]) == (SUB, CLASSES * SUB)
    store = Store.open(taught.store)
    assert store.identity.encoding.name == "full"
    described = describe_store(store)
    assert (described["classes"], described["subclasses"]) == (CLASSES, "3 a class, 30 logits")
    row = describe_rows(store, 1, None)[0]
    assert float(row["best"].split()[1].rstrip(",")) == pytest.approx(probabilities(taught.store)[0].max(), abs=1e-3)


def test_accuracies_are_those_of_the_classes(taught: Taught) -> None:
    store = Store.open(taught.store)
    p, labels = probabilities(taught.store), store.labels
    accuracy, rows = float((p.argmax(axis=1) == labels).mean()), np.arange(len(labels))
    losses = -np.log(p[rows, labels])
    assert accuracy > 0.5
    assert taught.extracted.accuracy_views == pytest.approx(accuracy)
    assert taught.extracted.accuracy_clean is not None
    stats = store_stats(store)
    assert (stats.classes, len(stats.labels_by_class), len(stats.top_by_class)) == (CLASSES, CLASSES, CLASSES)
    assert stats.accuracy == pytest.approx(accuracy)
    assert stats.nll == pytest.approx(losses.mean(), rel=1e-4)
    np.testing.assert_allclose(label_losses(store, 0), losses, rtol=1e-3, atol=1e-4)
    fitted = fit_temperature(store)
    assert fitted.accuracy == pytest.approx(accuracy)
    assert fitted.nll_before == pytest.approx(losses.mean(), rel=1e-4)
    others = np.where(np.arange(CLASSES) == labels[:, None], 0, p).max(axis=1)
    margins = [float((p[rows, labels] - others)[labels == label].mean()) for label in range(CLASSES)]
    np.testing.assert_allclose(class_margins(store), margins, atol=1e-4)


def test_validation_and_the_held_out_store_agree(taught: Taught) -> None:
    p = probabilities(taught.held_out)
    labels = Store.open(taught.held_out).labels
    best = max(line["accuracy"] for line in stages.metrics(taught.run))
    assert float((p.argmax(axis=1) == labels).mean()) == pytest.approx(best)


def test_a_student_takes_the_store_s_number_and_loads_as_a_plain_network(taught: Taught, tmp_path: Path) -> None:
    summary = train(student(tmp_path / "s", store=(str(taught.store),), val_store=(str(taught.held_out),), **TEST))
    assert 0 <= summary.validation["agreement"] <= 1
    assert "subclasses" not in json.loads((tmp_path / "s/settings.json").read_text())
    network = build_network(NETWORK, {"width": 4, "dropout": 0.1}, CLASSES * SUB, "student")
    load_weights(network, summary.weights, "student")
    again = extract(
        ExtractSettings.model_validate(
            {"store": str(tmp_path / "s.kd"), "teacher": f"run:{tmp_path / 's'}", "min_accuracy": 0.0, **DIGITS}
        )
    )
    assert Store.open(again.store).identity.teacher.subclasses == SUB
    assert Store.open(again.store).identity.parents == (Store.open(taught.store).content_id,)


def test_a_student_of_classes_learns_from_their_sums(taught: Taught, tmp_path: Path) -> None:
    stores, held_out = (str(taught.store),), (str(taught.held_out),)
    summary = train(student(tmp_path / "plain", store=stores, val_store=held_out, subclasses=1, **TEST))
    network = build_network(NETWORK, {"width": 4, "dropout": 0.1}, CLASSES, "student")
    load_weights(network, summary.weights, "student")
    assert json.loads((tmp_path / "plain/settings.json").read_text())["subclasses"] == 1
    data, options = open_data("digits", {"limit": ROWS}), LabelOptions(by_class=True)
    with closing(Loader(data, [Store.open(taught.store)], batch_size=64, epochs=1, labels=options)) as loader:
        batch = next(iter(loader))
    found = batch.teachers[0].dense(1.0)
    np.testing.assert_allclose(found, probabilities(taught.store)[batch.positions], rtol=1e-3, atol=1e-6)


def test_compare_and_diff_are_of_classes(stage: Stage, taught: Taught, tmp_path: Path) -> None:
    plain = tmp_path / "plain.kd"
    extract(stage.asked(plain, transform="none", transform_set={}, views="1", encoding="full"))
    p, q = probabilities(taught.store), Store.open(plain)
    order = np.argsort(Store.open(taught.store).order)[q.order]
    log_q = np.asarray(q.read(0, np.arange(ROWS)).log_probs(1.0), dtype=np.float64)
    found = diff_stores(Store.open(taught.store), q).rows
    assert found is not None
    assert found.agreement == pytest.approx(float((p[order].argmax(axis=1) == log_q.argmax(axis=1)).mean()))
    kl = (p[order] * (np.log(p[order]) - log_q)).sum(axis=1).mean()
    assert found.kl_ab.mean == pytest.approx(kl, rel=1e-3)
    settings = {"runs": (str(taught.run),), "store": (str(taught.held_out),), "data": "digits", "workers": 0}
    compared = compare(
        CompareSettings.model_validate(
            {**settings, "data_set": {"split": "test", "limit": 100}, "also": ("sharpness",)}
        )
    )
    measures = compared.groups[0].members[0].measures
    best = max(line["accuracy"] for line in stages.metrics(taught.run))
    assert measures["accuracy"].value == pytest.approx(best)
    assert measures["agreement"].value == 1.0
    assert measures["kl_to_teacher"].value == pytest.approx(0.0, abs=1e-5)


def test_verify_asks_the_teacher_again(taught: Taught) -> None:
    settings = {
        "store": str(taught.store),
        "data": "digits",
        "data_set": {"limit": ROWS},
        "teacher": f"run:{taught.run}",
    }
    assert verify(VerifySettings.model_validate(settings)).whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoding": "topk"}, "3 subclasses a class need all logits, and topk keeps some; use --encoding full"),
        ({"top_k": 5}, "3 subclasses a class need all logits, and topk keeps some; use --encoding full"),
        ({"encoding": "sampled"}, "3 subclasses a class need all logits, and sampled keeps some"),
        ({"subclasses": 2}, r"--subclasses is 2, and the network of .* was trained with 3 logits a class"),
        ({"mask_classes": (1,)}, "--mask-classes is of whole classes, and the teacher has 3 subclasses of each"),
        ({"class_map": "map.txt"}, "--class-map is of whole classes, and the teacher has 3 subclasses of each"),
    ],
)
def test_extractions_that_do_not_fit_are_refused(
    taught: Taught, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        taught.ask(tmp_path / "x.kd", **changes)


def test_a_teacher_of_whole_classes_has_no_subclasses(stage: Stage, tmp_path: Path) -> None:
    wanted = "answers 10 logits, and --subclasses 5 of the data's 10 classes take 50; build it so .*num_classes=50"
    with pytest.raises(InvalidInputError, match=wanted):
        extract(stage.asked(tmp_path / "x.kd", subclasses=5, weights="", teacher_set={"width": 8, "num_classes": 10}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subclasses": 2}, "the student has 2 subclasses a class, and .* has 3; give --subclasses 1"),
        ({"student_set": {"num_classes": 10}}, "answers 10 logits, .* has 10 classes with 3 subclasses each"),
        ({"top_k": 5}, "--top-k 5 was asked of a store with 3 subclasses a class"),
        ({"top_k": 11, "subclasses": 1}, "top-k 11 was asked for; .* keeps 10 classes"),
        ({"temperature": "calibrated"}, "--temperature calibrated is fitted to classes"),
        ({"objective": "dkd"}, "3 subclasses stand for each; use another objective"),
        (
            {"objective": "hard-teacher", "temperature": None},
            "HardTeacher takes .* by rank, and 3 subclasses stand for each",
        ),
    ],
)
def test_students_that_do_not_fit_are_refused(
    taught: Taught, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        train(student(tmp_path / "x", store=(str(taught.store),), val_store=(str(taught.held_out),), **TEST, **changes))


def test_teachers_with_subclasses_are_an_ensemble_by_their_classes(
    stage: Stage, taught: Taught, tmp_path: Path
) -> None:
    plain, other, unlike = tmp_path / "plain.kd", tmp_path / "other.kd", tmp_path / "t"
    extract(stage.asked(plain, transform="none", transform_set={}, views="1", encoding="full"))
    train(student(unlike, subclasses=SUB, epochs=1))
    taught.ask(other, teacher=f"run:{unlike}", min_accuracy=0.0)
    with pytest.raises(InvalidInputError, match=r"the student has 3 subclasses a class, and .*plain.kd has 1"):
        train(student(tmp_path / "x", store=(str(taught.store), str(plain))))
    with pytest.raises(InvalidInputError, match="number their 3 subclasses each in its own way: they cannot be averag"):
        train(student(tmp_path / "x", store=(str(taught.store), str(other))))
    train(student(tmp_path / "all", store=(str(taught.store), str(plain), str(other)), subclasses=1, epochs=1))


def test_a_plain_training_without_enough_logits_is_refused(tmp_path: Path) -> None:
    wanted = "label 9, the student answers 10 logits of classes with 5 subclasses each; .*num_classes=50"
    with pytest.raises(InvalidInputError, match=wanted):
        train(student(tmp_path / "x", subclasses=5, student_set={"num_classes": 10}))
    with pytest.raises(InvalidInputError, match="answers 10 logits, which are not those of two classes or more with 3"):
        train(student(tmp_path / "x", subclasses=3, student_set={"num_classes": 10}))


def test_a_dry_run_tries_no_top_k(taught: Taught, tmp_path: Path) -> None:
    settings = {"store": str(tmp_path / "x.kd"), "teacher": f"run:{taught.run}", **DIGITS}
    found = estimate(ExtractSettings.model_validate(settings))
    assert (found.encoding, found.k, found.by_k, found.by_tail) == ("full", None, (), ())


def test_a_term_of_ones_own_is_told_how_many_logits_the_student_answers(taught: Taught, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SEES)
    for name, changes in (("classes", {"subclasses": 1}), ("all", {})):
        own = {"objective": f"{tmp_path}/mine.py:Sees", "temperature": None, "epochs": 1}
        train(student(tmp_path / name, store=(str(taught.store),), **own, **changes))


def test_a_card_tells_of_them(taught: Taught) -> None:
    description = json.loads(croissant(Store.open(taught.store)))["description"]
    assert " (subclasses: 3 a class, 30 logits) for 300 samples of digits" in description


def test_it_is_recoded_to_no_top_k(taught: Taught, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="3 subclasses a class need all logits, and topk keeps some"):
        recode_store(str(taught.store), str(tmp_path / "x.kd"), Narrowing(top_k=3))


def test_class_logits_of_the_store_are_those_of_by_class(taught: Taught) -> None:
    soft = Store.open(taught.store).read(0, np.arange(20))
    np.testing.assert_allclose(
        np.exp(soft.by_class().log_probs(1.0)), probabilities(taught.store)[:20], rtol=1e-4, atol=1e-6
    )
    assert class_logits(soft.logits, SUB).shape == (20, CLASSES)
