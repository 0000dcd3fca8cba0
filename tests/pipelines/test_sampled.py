"""Sampled soft labels and a tail's mass through the stages: extracted, resumed, trained with, recoded, refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdcache.errors import InvalidInputError, KdcacheError, MismatchError
from kdcache.labels.encoding import LabelSpace
from kdcache.labels.sampled import SampledEncoding
from kdcache.labels.sampled_labels import SampledLabels
from kdcache.labels.topk import TopKEncoding
from kdcache.objectives.catalogue import LOGIT_TERMS, make_objective
from kdcache.pipelines.extract.dry_run import estimate
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.train.stage import train
from kdcache.pipelines.verify.settings import VerifySettings
from kdcache.pipelines.verify.stage import verify
from kdcache.sharing.export import export_store
from kdcache.store.plan import draw_words
from kdcache.store.store import Store
from kdcache.whole_store.calibrate import fit_temperature
from kdcache.whole_store.diff import diff_stores
from kdcache.whole_store.recode import recode_store
from kdcache.whole_store.recode_plan import Narrowing
from kdcache.whole_store.row_bytes import row_bytes
from kdcache.whole_store.stats import store_stats
from tests.kits import stages
from tests.kits.labels import batch_of
from tests.kits.recode import recoded
from tests.kits.stages import Stage, student
from tests.kits.stores import make_case, write_store

stage = stages.stage
CHOSEN: dict[str, Any] = {"encoding": "sampled", "draws": 6, "draw_temperature": 2.0}


@pytest.fixture
def sampled(stage: Stage, tmp_path: Path) -> str:
    return extract(stage.asked(tmp_path / "sampled.kd", **CHOSEN)).store


@pytest.fixture(scope="module")
def sampled_head(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same with the teacher's classifier."""
    return extract(stage.asked(tmp_path_factory.mktemp("head") / "sampled.kd", keep="head", **CHOSEN)).store


@pytest.fixture
def full(stage: Stage, tmp_path: Path) -> str:
    return extract(stage.asked(tmp_path / "full.kd", encoding="full")).store


@pytest.mark.parametrize("mix", ["none", "mixup"])
def test_extract_draws_from_the_teacher(stage: Stage, tmp_path: Path, mix: str) -> None:
    """The draws of every row are those of its answer by its own key word, whatever batch it was in."""
    path = extract(stage.asked(tmp_path / "sampled.kd", mix=mix, batch_size=64, **CHOSEN)).store
    other = extract(stage.asked(tmp_path / "full.kd", mix=mix, encoding="full")).store
    store, answers = Store.open(path), Store.open(other)
    assert json.loads(Path(path, "kdcache/manifest.json").read_text())["identity"]["encoding"] == {
        "name": "sampled", "features": 0, "head": 0, "draws": 6, "draw_temperature": 2.0, "contents": "bytes",
    }  # fmt: skip
    positions, equal = np.arange(store.rows), []
    for view in store.every_view:
        soft, exact = store.read(view, positions), answers.read(view, positions)
        assert isinstance(soft, SampledLabels)
        words = draw_words(0, store.order[positions], view)
        wanted = SampledEncoding(draws=6, draw_temperature=2.0).draw(exact.all_logits(), words, LabelSpace(10))["draws"]
        equal.append((soft.draws == wanted).all(axis=1).mean())
        assert np.abs(soft.label_log_prob(2.0) - exact.label_log_prob(2.0)).max() < 0.02
    assert min(equal) > 0.98  # an answer in f16 moves an id where a uniform lies at an edge
    counts = store.segments[0].commit_of(0).counts
    assert (counts.labelled, counts.clamped) == (answers.segments[0].commit_of(0).counts.labelled, 0)
    assert counts.correct == answers.segments[0].commit_of(0).counts.correct
    assert all(check.passed for check in verify(VerifySettings(store=path)).checks)


def test_later_views_and_other_draws(stage: Stage, sampled: str) -> None:
    more = extract(stage.asked(sampled, encoding="sampled", views="2:3"))
    assert Store.open(more.store).every_view == (0, 1, 2)
    assert Store.open(more.store).read(2, [0]).draws.shape == (1, 6)
    for changes, field in (({"draws": 7}, "draws"), ({"draw_temperature": 1.0}, "draw_temperature")):
        with pytest.raises(MismatchError, match=rf"encoding\.{field}"):
            extract(stage.asked(sampled, **{**CHOSEN, **changes}))
    with pytest.raises(InvalidInputError, match=r"no draws at T = 1.0 were asked for; give --draws"):
        extract(stage.asked(sampled + "2", encoding="sampled"))
    with pytest.raises(InvalidInputError, match=r"are of --encoding sampled, and topk was chosen"):
        extract(stage.asked(sampled + "2", draws=5))


@pytest.mark.parametrize(("objective", "settings"), [("kd", {}), ("ttm", {}), ("kd", {"combine": "losses"})])
def test_a_student_learns_from_draws_and_resumes(
    sampled: str, full: str, tmp_path: Path, objective: str, settings: dict[str, Any]
) -> None:
    """The loss is that of all logits and the teacher's entropy, so it is near it and above."""
    stores = (sampled, full) if settings else (sampled,)
    run = student(tmp_path / "run", store=stores, objective=objective, set={"w_ce": 0.0, "w_kd": 1.0}, **settings)
    first = train(run)
    assert train(run).loss == first.loss
    exact = train(student(tmp_path / "exact", store=(full,), objective=objective, set={"w_ce": 0.0, "w_kd": 1.0}))
    assert exact.loss < first.loss < exact.loss + 4 * np.log(10)


SERVED = ("function-matching", "kd", "kd-pt", "kd-sim", "ttm")


@pytest.mark.parametrize("name", sorted(LOGIT_TERMS))
def test_every_objective_is_served_or_refused_by_name_before_the_first_step(
    sampled_head: str, tmp_path: Path, name: str
) -> None:
    """Served at the draws' temperature, and at no other; those without a teacher do not ask the store."""
    facts = LOGIT_TERMS[name].facts
    asks = "temperature" in facts.asks_at
    run = student(tmp_path / "run", store=(sampled_head,), objective=name, temperature=2.0 if asks else None)
    if not facts.teacher:
        for stores in ((sampled_head,), ()):
            assert np.isfinite(train(run.model_copy(update={"store": stores, "run": f"{run.run}{len(stores)}"})).loss)
        return
    if name in SERVED:
        assert np.isfinite(train(run).loss)
        other = student(tmp_path / "other", store=(sampled_head,), objective=name, temperature=4.0)
        if asks:
            with pytest.raises(InvalidInputError, match=r"known at T = 2 alone; give --temperature 2"):
                train(other)
        return
    advice = r"--encoding topk or full, or an objective that draws serve: kd, kd-pt, kd-sim, ttm, function-matching"
    with pytest.raises(InvalidInputError, match=rf"objective {name} needs log-probabilities by class, .*; .*{advice}"):
        train(run)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", sorted(name for name, term in LOGIT_TERMS.items() if term.facts.teacher))
def test_a_loop_of_one_s_own_is_told_so_too(sampled: str, name: str) -> None:
    settings = {"temperature": 2.0} if "temperature" in LOGIT_TERMS[name].facts.asks_at else {}
    objective = make_objective(name, settings, head=torch.randn(10, 8) if name == "kd-sim" else None)
    batch = batch_of(Store.open(sampled).read(0, np.arange(8)).to(), y=torch.arange(8))
    logits = torch.randn(8, 10)
    if name in SERVED:
        assert torch.isfinite(objective(logits, batch))
        return
    kind = type(objective.term).__name__
    with pytest.raises(
        InvalidInputError, match=rf"{kind} needs log-probabilities by class, .* gives 6 draws a row; use a"
    ):
        objective(logits, batch)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another temperature": ({"temperature": 4.0}, r"temperature 4.0 was asked of drawn soft labels, which is known at"),
    "a ramp": ({"over_epochs": {"temperature": "0:2,1:3"}, "temperature": None}, "known at T = 2 alone"),
    "top k": ({"top_k": 3}, r"--top-k was asked of a store that holds 6 draws at T = 2"),
    "an ensemble": ({"store": 2}, r"--combine probabilities needs log-probabilities by class"),
    "calibrated": ({"temperature": "calibrated", "calibration_store": True}, "a fitted temperature needs log-prob"),
    "validation": ({"val_store": True}, "--val-store needs log-probabilities by class"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_draws_cannot_tell_is_refused_before_the_first_step(sampled: str, tmp_path: Path, name: str) -> None:
    changes, named = REFUSED[name]
    changes = {key: sampled if value is True else value for key, value in changes.items()}
    changes["store"] = (sampled,) * changes.get("store", 1)
    with pytest.raises(InvalidInputError, match=named):
        train(student(tmp_path / "run", objective="kd", **{"temperature": 2.0, **changes}))
    assert not (tmp_path / "run").exists()


def test_whole_store_commands_work_or_refuse_by_name(stage: Stage, sampled: str, full: str, tmp_path: Path) -> None:
    store, answers = Store.open(sampled), Store.open(full)
    record = {"store": sampled, "data": "digits", "data_set": {"limit": 300}, "teacher": stages.NETWORK}
    live = VerifySettings.model_validate(record | {"teacher_set": {"width": 8}, "weights": stage.weights})
    for ask in (lambda: store_stats(store), lambda: fit_temperature(store), lambda: verify(live)):
        with pytest.raises(
            InvalidInputError, match=r"needs log-probabilities by class, and 6 draws at T = 2 a row give"
        ):
            ask()
    difference = diff_stores(store, answers)
    assert (difference.same, difference.rows) == (False, None)
    assert "the stores hold 6 draws at T = 2 and all logits: draws give no log-probabilities" in difference.note
    assert diff_stores(store, Store.open(sampled)).same
    assert 3 < row_bytes(store) < 20
    dry = estimate(stage.asked(tmp_path / "dry.kd", **CHOSEN))
    assert dry.bytes_a_row > 3
    export_store(sampled, str(tmp_path / "sampled.zip"))
    assert np.array_equal(Store.open(tmp_path / "sampled.zip").read(1, [5]).draws, store.read(1, [5]).draws)


def test_recode_draws_from_all_logits(full: str, sampled: str, tmp_path: Path) -> None:
    changes = {"encoding": "sampled", "draws": 6, "draw_temperature": 2.0}
    summary, store = recoded(Path(full), tmp_path / "drawn.kd", **changes)
    assert summary.encoding == "6 draws at T = 2"
    direct = Store.open(sampled)
    assert store.identity == direct.identity
    rows, wanted = (each.read(1, np.arange(300)) for each in (store, direct))
    assert (rows.draws == wanted.draws).all(axis=1).mean() > 0.98
    assert np.nanmax(np.abs(rows.label_log_prob(2.0) - wanted.label_log_prob(2.0))) <= 1 / 64
    for source, narrowing, named in (
        (sampled, {"top_k": 2}, "top-k was asked of a store that holds 6 draws at T = 2"),
        (sampled, {"encoding": "full"}, "all logits were asked of a store that holds 6 draws at T = 2"),
        (sampled, {"encoding": "sampled", "draws": 3}, "3 draws at T = 2 were asked of a store that holds 6 draws"),
        (full, {"encoding": "sampled"}, "no draws at T = 1.0 were asked for; give --draws"),
        (full, {"draws": 3}, "--draws and --draw-temperature are of --encoding sampled, and full was chosen"),
    ):
        with pytest.raises(InvalidInputError, match=named):
            recode_store(source, str(tmp_path / "no.kd"), Narrowing.model_validate(narrowing))


def test_recoding_of_draws_carries_them_over(tmp_path: Path) -> None:
    """Other blocks, fewer features, the same draws: nothing is drawn anew."""
    case = make_case(200, encoding=SampledEncoding(draws=4, features=3))
    store = write_store(tmp_path / "a.kd", case)
    with pytest.raises(InvalidInputError, match="recode names nothing to change"):
        recode_store(str(tmp_path / "a.kd"), str(tmp_path / "b.kd"), Narrowing())
    _, cut = recoded(tmp_path / "a.kd", tmp_path / "b.kd", drop=("features",))
    before, after = (each.load(1, np.arange(200)).arrays for each in (store, cut))
    assert before.keys() == after.keys() == {"draws", "label", "pixels"}
    for name in before:
        assert np.array_equal(before[name], after[name])


def test_tail_mass_through_the_stages(tmp_path: Path) -> None:
    """Recoded, compared, and refused by name where other temperatures would be asked for."""
    case = make_case(200, classes=10, encoding=TopKEncoding(k=5, tail="mass", packing="residuals"))
    store = write_store(tmp_path / "mass.kd", case)
    _, cut = recoded(tmp_path / "mass.kd", tmp_path / "cut.kd", top_k=2)
    assert cut.identity.encoding == TopKEncoding(k=2, tail="mass", packing="residuals")
    direct = write_store(tmp_path / "direct.kd", make_case(200, classes=10, encoding=cut.identity.encoding))
    rows, wanted = (each.read(1, np.arange(200)) for each in (cut, direct))
    assert np.array_equal(rows.best(2), wanted.best(2))
    assert np.abs(rows.tail_log_mass(1.0) - wanted.tail_log_mass(1.0)).max() < 1 / 16
    difference = diff_stores(store, direct)
    assert difference.rows is not None
    assert difference.rows.agreement == 1
    for ask in (lambda: diff_stores(store, direct, temperature=2.0), lambda: fit_temperature(store)):
        with pytest.raises(InvalidInputError, match=r"its mass at T = 1 alone|is known at T = 1 alone"):
            ask()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"objective": "kd", "temperature": 2.0}, "known at T = 1 alone"),
        ({"objective": "jsd", "temperature": 2.0, "tail": "none"}, "known at T = 1 alone"),
        ({"objective": "ctkd"}, "objective ctkd needs the tail at every T"),
        ({"objective": "logit-mse"}, "objective logit-mse needs the tail at every T"),
        ({"objective": "kd", "temperature": 2.0, "top_k": 1}, "known at T = 1 alone"),
        ({"objective": "kd", "temperature": 1.0, "tail": "class-mean"}, "holds no class means"),
    ],
)
def test_training_on_a_tail_s_mass(stage: Stage, tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    path = mass_of_digits(stage, tmp_path)
    with pytest.raises(KdcacheError, match=named):
        train(student(tmp_path / "run", store=(path,), **{"temperature": None, **changes}))
    assert not (tmp_path / "run").exists()
    for tail, temperature in (("uniform", 1.0), ("none", 3.0)):
        run = student(tmp_path / tail, store=(path,), objective="kd", temperature=temperature, tail=tail)
        assert np.isfinite(train(run).loss)


def mass_of_digits(stage: Stage, tmp_path: Path) -> str:
    """The digits' store with the same answers, of whose tail the mass alone is kept."""
    source = Store.open(stage.store)
    assert isinstance(source.identity.encoding, TopKEncoding)
    encoding = source.identity.encoding.model_copy(
        update={"tail": "mass", "class_means": False, "packing": "plain", "contents": None}
    )
    identity = source.identity.model_copy(update={"encoding": encoding})
    store = Store.create(
        tmp_path / "mass.kd", identity, order=source.order, labels=source.labels, provenance=source.manifest.provenance
    )
    segment = store.add_segment(source.segments[0].views)
    for block in range(segment.layout.blocks):
        positions = np.arange(*segment.layout.block_rows(block))
        by_view = [source.read(view, positions) for view in segment.views]
        fields = [
            encoding.fields_of(soft, source.hard_labels(0, positions)[:, None], identity.space) for soft in by_view
        ]
        joined = {name: np.stack([part[name] for part in fields]) for name in fields[0]}
        arrays = dict(encoding.encode(joined, identity.space).arrays)
        arrays["pixels"] = np.stack([source.load(view, positions).arrays["pixels"] for view in segment.views])
        if block == 0:
            arrays["canary"] = np.stack([source.segments[0].canary(view) for view in segment.views])
        commit = source.segments[0].commit_of(block)
        assert segment.commit(block, arrays=arrays, counts=commit.counts, provenance=commit.provenance) is not None
    store.seal()
    return str(tmp_path / "mass.kd")
