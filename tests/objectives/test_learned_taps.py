"""objectives of taps that draw, fit or contrast: masks of MGD, negatives of CRD, matchings of aligned."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from kdcache.errors import InvalidInputError
from kdcache.labels.sampled_labels import SampledLabels
from kdcache.objectives.batch import Batch, Negatives
from kdcache.objectives.catalogue import make_objective
from kdcache.objectives.crd import contrast, weights_of_negatives
from kdcache.objectives.mgd import MGD
from kdcache.objectives.objective import Objective
from kdcache.objectives.outputs import Outputs
from tests.kits.tap_cases import CLASSES, TapCase, term_loss, term_of

MAPS = TapCase({"a": (3, 4, 4)}, ({"m": (4, 4, 4)},))
FEATURES = TapCase({"features": (3,)}, ({"features": (4,)},), last="features")


def mgd(seed: int = 0, **settings: Any) -> MGD:
    torch.manual_seed(seed)
    term = make_objective("mgd", settings, sizes=MAPS.sizes).term
    assert isinstance(term, MGD)
    return term


def at_step(**fields: Any) -> Batch:
    return replace(MAPS.batch, positions=torch.arange(4000), **fields)


def test_masks_hide_their_share_of_places_and_no_two_draws_are_alike() -> None:
    size = (4, 4)
    for ratio in (0.0, 0.25, 0.5, 0.9):
        masks = mgd(ratio=ratio).masks(at_step(), 0, size).float()
        assert float(1 - masks.mean()) == pytest.approx(ratio, abs=0.01)  # 64,000 places: .002 of deviation
        assert float((1 - masks.mean(dim=0) - ratio).abs().max()) < 0.04
    term = mgd()
    first = term.masks(at_step(), 0, size)
    draws = [term.masks(at_step(**{field: 1}), 0, size) for field in ("step", "epoch", "view")]
    draws += [term.masks(at_step(), 1, size), mgd(1).masks(at_step(), 0, size), first.roll(1, dims=0)]
    for draw in draws:
        assert float((draw == first).float().mean()) == pytest.approx(0.5, abs=0.02)


def test_masks_are_of_rows_and_not_of_batches_and_come_back_with_the_state() -> None:
    """So several processes, and a run that goes on, mask alike."""
    term, other = mgd(), mgd(1)
    whole = term.masks(at_step(step=3), 0, (4, 4))
    part = replace(at_step(step=3), positions=torch.arange(4000)[7::3])
    assert torch.equal(term.masks(part, 0, (4, 4)), whole[7::3])
    other.load_state_dict(term.state_dict())
    assert torch.equal(other.masks(at_step(step=3), 0, (4, 4)), whole)
    torch.manual_seed(5)
    assert torch.equal(term.masks(at_step(step=3), 0, (4, 4)), whole)


def test_nothing_is_masked_in_eval_mode() -> None:
    objective = MAPS.objective("mgd")
    plain = MAPS.objective("mgd", ratio=0.0)
    masked = term_loss(objective, MAPS.outputs, MAPS.batch).item()
    objective.eval()
    assert term_loss(objective, MAPS.outputs, MAPS.batch).item() != masked
    expected = term_loss(plain, MAPS.outputs, MAPS.batch).item()
    assert term_loss(objective, MAPS.outputs, MAPS.batch).item() == expected


def test_contrast_by_hand_and_without_overflow() -> None:
    own, others = torch.tensor([2.0]), torch.tensor([[1.0, 0.0, 5.0]])
    weights = torch.tensor([[1.0, 1.0, 0.0]])
    h = [math.exp(x) / (math.exp(x) + 2 * 0.5) for x in (2.0, 1.0, 0.0)]
    expected = -math.log(h[0]) - math.log(1 - h[1]) - math.log(1 - h[2])
    assert contrast(own, others, weights, torch.tensor(0.5).log()).item() == pytest.approx(expected, rel=1e-6)
    far = torch.full((2, 3), 1 / 1e-3, requires_grad=True)  # tau .001: e^1000
    loss = contrast(-torch.full((2,), 1 / 1e-3), far, torch.ones(2, 3), torch.tensor(-10.0))
    (gradient,) = torch.autograd.grad(loss, far)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_negatives_of_a_row_s_own_class_and_the_row_itself_do_not_count() -> None:
    negatives = Negatives(torch.tensor([7, 8, 9, 2]), torch.tensor([0, 1, -1, 3]), ())
    batch = replace(FEATURES.batch, y=torch.tensor([0, 1, -1]), positions=torch.tensor([0, 1, 2]))
    expected = torch.tensor([[0.0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 0]])
    assert torch.equal(weights_of_negatives(batch, negatives), expected)
    mixed = replace(batch, y2=torch.tensor([1, 1, 0]), lam=torch.tensor([0.75, 0.25, 0.5]))
    expected = torch.tensor([[0.25, 0.75, 1, 1], [1, 0, 1, 1], [0.5, 1, 1, 0]])
    assert torch.equal(weights_of_negatives(mixed, negatives), expected)


def test_crd_wants_negatives_and_its_constant() -> None:
    torch.manual_seed(0)
    objective = make_objective("crd", {"negatives": 9}, sizes=FEATURES.sizes)
    assert isinstance(objective, Objective)
    assert objective.negatives == 9
    outputs = Outputs(torch.zeros(5, CLASSES), FEATURES.random(0, 5, 3).float())
    with pytest.raises(InvalidInputError, match=r"no constant Z yet: call fit.*or take --set constant=paper"):
        term_loss(objective, outputs, FEATURES.batch)
    with pytest.raises(InvalidInputError, match="fitted on at least one batch, and none was given"):
        term_of(objective).fit([])  # type: ignore[operator]
    term_of(objective).fit([(outputs, replace(FEATURES.batch, negatives=None))])  # type: ignore[operator]
    with pytest.raises(InvalidInputError, match="needs negatives and the batch has none"):
        term_loss(objective, outputs, replace(FEATURES.batch, negatives=None))
    with pytest.raises(InvalidInputError, match=r"needs the number of rows of a view: give Sizes\(rows=...\)"):
        make_objective("crd", {"constant": "paper"}, sizes=replace(FEATURES.sizes, rows=0))


def test_the_constant_of_crd_is_the_mean_over_the_batches_it_is_fitted_on() -> None:
    objective = FEATURES.objective("crd")
    term: Any = term_of(objective)
    term.log_z.fill_(torch.nan)
    term._is_fitted = False
    batches = [(FEATURES.outputs, FEATURES.batch), (replace(FEATURES, seed=1).outputs, FEATURES.batch)]
    term.fit(iter(batches))
    powers = []
    for outputs, batch in batches:
        assert outputs.features is not None
        assert batch.negatives is not None
        a = torch.nn.functional.normalize(term.of_student[0](outputs.features), dim=1)
        b = torch.nn.functional.normalize(term.of_teacher[0](batch.negatives.features[0].double()), dim=1)
        powers.append((a @ b.T / 0.07).exp().mean().item())
    assert float(term.log_z.exp()) == pytest.approx(sum(powers) / 2, rel=1e-9)
    paper = FEATURES.objective("crd", constant="paper")
    assert float(term_of(paper).log_z.exp()) == pytest.approx(1 / 40)  # type: ignore[operator,union-attr]


def test_aligned_finds_channels_that_were_put_in_another_order() -> None:
    case = TapCase({"a": (4, 3, 3)}, ({"m": (4, 3, 3)},), rows=8)
    batch, order = case.batch, [2, 0, 3, 1]
    outputs = Outputs(case.outputs.logits, None, {"a": batch.tap(0, "m").double()[:, order]})
    objective = case.objective("aligned")
    term: Any = term_of(objective)
    term.fit([(outputs, batch)])
    assert term.matchings[0].channels.tolist() == [[0, 1, 2, 3], order]
    assert term_loss(objective, outputs, batch).item() == 0
    learned = case.objective("aligned", map="learned")
    term_of(learned).fit([(outputs, batch)])  # type: ignore[operator]
    assert term_loss(learned, outputs, batch).item() == pytest.approx(0, abs=1e-12)
    assert sum(parameter.requires_grad for parameter in term_of(learned).parameters()) == 2


def test_aligned_is_fitted_first_on_rows_of_two_classes() -> None:
    objective = make_objective("aligned", sizes=MAPS.sizes)
    assert isinstance(objective, Objective)
    with pytest.raises(InvalidInputError, match="has not matched the channels yet: call fit"):
        term_loss(objective, MAPS.outputs, MAPS.batch)
    term: Any = term_of(objective)
    one_class = replace(MAPS.batch, y=torch.ones(5, dtype=torch.int64))
    with pytest.raises(InvalidInputError, match="1 classes are among the rows that it is fitted on"):
        term.fit([(MAPS.outputs, one_class)])
    with pytest.raises(InvalidInputError, match="0 classes are among the rows"):
        term.fit([])
    term.matchings[0].channels.zero_()
    assert not [name for name, _ in term.named_parameters()]


def test_drawn_soft_labels_serve_where_no_class_is_asked_of_them(subtests: pytest.Subtests) -> None:
    """Rows that were drawn tell no top class: labels do for aligned, and SimKD goes unchecked."""
    draws = torch.zeros(5, 3, dtype=torch.int64)
    drawn = SampledLabels(torch.zeros(5, 0), torch.zeros(5), CLASSES, draws=draws, draw_temperature=1.0)
    case = replace(MAPS, student={"a": (3, 4, 4), "projector": (4, 4, 4)})
    batch = replace(case.batch, teachers=(drawn,), y=torch.tensor([0, 1, 2, 3, 4]))
    for name in ("hint", "at", "sp", "mgd", "aligned", "simkd"):
        with subtests.test(name):
            objective = make_objective(name, {"w_ce": 0.0}, sizes=case.sizes).double()
            assert isinstance(objective, Objective)
            if name in ("aligned", "simkd"):
                term_of(objective).fit([(case.outputs, batch)])  # type: ignore[operator]
            assert objective(case.outputs, batch).isfinite()
    with pytest.raises(InvalidInputError, match="the top class"):
        term_of(MAPS.objective("aligned")).fit([(MAPS.outputs, replace(batch, y=-batch.y))])  # type: ignore[operator]
