"""A new encoding is one class and one entry: all commands work with it, though none has heard of it."""

import json
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import pytest
from array_api_compat import array_namespace

from kdcache.errors import FormatError, InvalidInputError
from kdcache.labels.encoding import Choice, Encoded, Encoding, LabelSpace, RowArray
from kdcache.labels.encodings import ENCODINGS
from kdcache.labels.reduction import Array, TopK, best_classes, centre, label_distances, logsumexp
from kdcache.labels.soft_labels import SoftLabels
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.train.stage import train
from kdcache.pipelines.verify.settings import VerifySettings
from kdcache.pipelines.verify.stage import verify
from kdcache.store.inspection import describe_rows, describe_store
from kdcache.store.store import Store
from kdcache.whole_store.diff import diff_stores
from kdcache.whole_store.recode import recode_store
from kdcache.whole_store.recode_plan import Narrowing
from kdcache.whole_store.stats import store_stats
from tests.kits import stages
from tests.kits.stages import Stage

stage = stages.stage

STEPS = 128  # of a log-odds
NONE = -32768
OTHERS = ("pixels", "canary", "contents", "commits")  # of every store


@dataclass(frozen=True, kw_only=True)
class TopOneLabels(SoftLabels):
    """The best class [B, 1], and `rest` [B]: log of the other classes' odds at T = 1. They count as equally likely."""

    classes: Array
    rest: Array

    BY_ROW: ClassVar[tuple[str, ...]] = ("classes", "logits", "rest", "label")

    @property
    def tail_classes(self) -> int:
        return self.num_classes - len(self.masked) - 1

    @property
    def top_class(self) -> Array:
        return self.classes[..., 0]

    def best(self, k: int) -> Array:
        return array_namespace(self.classes).astype(self.classes[..., :k], array_namespace(self.classes).int64)

    def tail_log_mass(self, temperature: float | Array) -> Array:
        self.require_temperature(temperature)
        flat = log(self.tail_classes)
        return flat + (self.rest - flat) / temperature

    def tail_moments(self) -> tuple[Array, Array]:
        return self.tail_mean(), self.rest * 0.0

    def tail_mean(self) -> Array:
        return self.rest - log(self.tail_classes)

    def prefix(self, k: int) -> Self:
        if k != 1:
            raise InvalidInputError(f"top-k {k} was asked of rows that hold 1")
        return self

    def reduced(self, k: int, hard_BL: Array) -> TopK:
        raise NotImplementedError


class TopOne(Encoding):
    """The best class and its probability, as a log-odds in steps of 1/128."""

    name: Literal["top1"] = "top1"

    @classmethod
    def chosen(cls, choice: Choice, space: LabelSpace, *, like: Encoding | None = None) -> Self:
        return cls()

    @classmethod
    def narrowed(cls, source: Encoding, choice: Choice, space: LabelSpace) -> Self:
        return cls()

    @property
    def logits_kept(self) -> str:
        return "the best class"

    def kept(self, space: LabelSpace) -> int:
        return 1

    def require_fit(self, space: LabelSpace) -> None:
        if space.visible < 2:
            raise ValueError("top1 needs two classes")

    def arrays(self, space: LabelSpace) -> dict[str, RowArray]:
        label = () if space.labels == 1 else (space.labels,)
        return {
            "best": RowArray("uint16", "id of the best class"),
            "odds": RowArray("int16", "log-odds of all others"),
            "far": RowArray("float16", "the hard label's distance to the top logit", back=label),
        }

    def reduce(self, logits_BC: Array, labels_BL: Array, space: LabelSpace) -> dict[str, Array]:
        centred = centre(logits_BC, space.masked)
        xp = array_namespace(centred)
        best = best_classes(centred, 1)
        total = logsumexp(centred)  # the top logit is 0
        odds = total + xp.log(-xp.expm1(-total))
        return {"best": best[..., 0], "odds": odds, "label": label_distances(centred, labels_BL)}

    def encode(self, fields: dict[str, Array], space: LabelSpace) -> Encoded:
        label = fields["label"].astype(np.float16)
        arrays = {
            "best": fields["best"].astype(np.uint16),
            "odds": np.clip(np.rint(fields["odds"] * STEPS), NONE, -NONE - 1).astype(np.int16),
            "far": label[..., 0] if label.shape[-1] == 1 else label,
        }
        return Encoded(arrays, np.zeros(arrays["best"].shape, dtype=bool))

    def decode(self, arrays: dict[str, Array], space: LabelSpace) -> TopOneLabels:
        classes, rest = arrays["best"][..., None], arrays["odds"].astype(np.float32) / STEPS
        return TopOneLabels(
            classes=classes,
            logits=np.zeros(classes.shape, dtype=np.float32),
            rest=rest,
            label=-arrays["far"].astype(np.float32),
            num_classes=space.classes,
            masked=space.masked,
        )

    def fields_of(self, soft: SoftLabels, hard_RL: Array, space: LabelSpace) -> dict[str, Array]:
        log_odds = soft.log_normalizer(1.0)
        label = -soft.label if soft.label.ndim == 2 else -soft.label[:, None]
        return {"best": soft.best(1)[:, 0], "odds": log_odds + np.log(-np.expm1(-log_odds)), "label": label}

    def at_limit(self, arrays: dict[str, Array], kept: int) -> Array:
        return np.asarray(arrays["odds"] == NONE)

    def answer_error(self, span: float) -> float:
        return 1.0 / STEPS


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODINGS, "top1", TopOne)


@pytest.fixture
def top1(stage: Stage, tmp_path: Path) -> str:
    """A store of this encoding, extracted as any other."""
    summary = extract(stage.asked(tmp_path / "top1.kd", encoding="top1"))
    assert summary.content_id is not None
    return summary.store


def test_it_is_extracted_read_and_told(stage: Stage, top1: str) -> None:
    store, other = Store.open(top1), Store.open(stage.store)
    manifest = json.loads(Path(top1, "kdcache/manifest.json").read_text())
    assert manifest["identity"]["encoding"] == {"name": "top1", "features": 0, "head": 0, "contents": "bytes"}
    positions = np.arange(store.rows)
    for view in store.every_view:
        soft, wanted = store.read(view, positions), other.read(view, positions)
        assert isinstance(soft, TopOneLabels)
        assert np.array_equal(soft.top_class, wanted.top_class)
        assert np.abs(soft.log_probs(1.0)[:, 0] - wanted.log_probs(1.0)[:, 0]).max() < 0.05
        assert np.allclose(soft.dense(1.0).sum(axis=-1), 1.0, atol=1e-5)
    assert describe_store(store)["soft_labels"] == "the best class"
    assert describe_rows(store, 3, None)[0]["best"].count(",") == 0


def test_it_is_verified_measured_and_compared(stage: Stage, top1: str) -> None:
    checks = verify(VerifySettings(store=top1)).checks
    assert checks
    assert all(check.passed for check in checks)
    store, other = Store.open(top1), Store.open(stage.store)
    assert {array.name for array in store_stats(store).arrays} == {*TopOne().arrays(store.identity.space), *OTHERS}
    difference = diff_stores(store, other)
    assert not difference.same
    assert difference.rows is not None
    assert (difference.rows.agreement, difference.rows.top_k) == (1.0, 1)
    assert difference.a.soft_labels == "the best class"


@pytest.mark.parametrize("objective", ["kd", "dkd", "nkd", "jsd"])
def test_a_student_learns_from_it_and_resumes(top1: str, tmp_path: Path, objective: str) -> None:
    run = stages.student(tmp_path / "run", store=(top1,), objective=objective)
    first = train(run)
    assert np.isfinite(first.loss)
    assert train(run).loss == first.loss


def test_other_stores_are_recoded_to_it(stage: Stage, top1: str, tmp_path: Path) -> None:
    summary = recode_store(stage.store, str(tmp_path / "cut.kd"), Narrowing(encoding="top1"))
    assert (summary.encoding, summary.content_id is not None) == ("the best class", True)
    cut, direct = Store.open(summary.out), Store.open(top1)
    assert cut.identity == direct.identity
    rows, wanted = (store.read(1, np.arange(store.rows)) for store in (cut, direct))
    assert np.array_equal(rows.top_class, wanted.top_class)
    assert np.abs(rows.log_probs(1.0) - wanted.log_probs(1.0)).max() < 0.05
    assert all(check.passed for check in verify(VerifySettings(store=summary.out)).checks)


def test_what_is_not_known_is_refused(stage: Stage, top1: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match=r"top-k was asked of a store that holds the best class"):
        recode_store(top1, str(tmp_path / "up.kd"), Narrowing(top_k=3))
    with pytest.raises(InvalidInputError, match=r"encoding 'top9' is unknown; choose among topk, full, sampled, top1"):
        extract(stage.asked(tmp_path / "no.kd", encoding="top9"))
    monkeypatch.delitem(ENCODINGS, "top1")
    with pytest.raises(FormatError, match=r"the encoding's name must be one of topk, full, sampled"):
        Store.open(top1)
