"""Verdicts are those of Student's t and of Holm, as scipy and statsmodels have them."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from kdcache.measures.intervals import LEVEL
from kdcache.pipelines.studies.claims import Claim
from kdcache.pipelines.studies.verdict import adjusted, judge

UP = np.array([0.8, 1.3, 0.4, 1.1, 0.9, 1.6, 0.2, 1.0])


def test_a_difference_above_0_is_judged_by_its_interval() -> None:
    judged = judge(Claim("more"), UP)
    test = stats.ttest_1samp(UP, 0.0)
    interval = test.confidence_interval(1 - LEVEL)
    np.testing.assert_allclose([judged.low, judged.high, judged.p], [interval.low, interval.high, test.pvalue])
    assert (judged.verdict, judge(Claim("more"), -UP).verdict) == ("shown", "reversed")
    assert judge(Claim("more"), UP - UP.mean()).verdict == "not shown"


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.5, 1.2])
def test_the_same_within_a_margin_is_shown_by_two_one_sided_tests(shift: float) -> None:
    values, margin = UP - UP.mean() + shift, 0.7
    judged = judge(Claim("the same", direction="same", margin=margin), values)
    largest, _, _ = DescrStatsW(values).ttost_mean(-margin, margin)
    assert (judged.verdict == "shown") == (largest < LEVEL / 2)
    if shift < margin:
        np.testing.assert_allclose(judged.p, 2 * largest)


def test_the_same_is_reversed_where_the_whole_interval_is_outside() -> None:
    claim = Claim("the same", direction="same", margin=0.1)
    assert judge(claim, UP).verdict == judge(claim, -UP).verdict == "reversed"
    assert judge(claim, UP - 0.95 * UP.mean()).verdict == "not shown"


def test_not_below_leaves_a_margin_below_0() -> None:
    claim = Claim("as good", direction="not below", margin=0.6)
    verdicts = [judge(claim, UP - UP.mean() + mean).verdict for mean in (0.5, -0.1, -0.5, -1.2)]
    assert verdicts == ["shown", "shown", "not shown", "reversed"]


def test_a_number_that_never_varies_is_decided() -> None:
    assert judge(Claim("more"), np.full(8, 0.25)).verdict == "shown"
    assert judge(Claim("more"), np.zeros(8)).verdict == "not shown"


@pytest.mark.parametrize("values", [[1.0], [1.0, np.nan], [1.0, np.inf]])
def test_what_has_no_interval_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="more"):
        judge(Claim("more"), np.array(values))


def test_all_claims_in_view_are_judged_by_holm() -> None:
    generator = np.random.default_rng(3)
    judged = [judge(Claim("more"), generator.normal(mean, 1.0, 8)) for mean in np.linspace(0.0, 2.5, 12)]
    rejected = multipletests([one.p for one in judged], LEVEL, "holm")[0]
    expected = [one.verdict if stays else "not shown" for one, stays in zip(judged, rejected, strict=True)]
    assert adjusted(judged) == expected
    assert 0 < sum(rejected) < sum(one.verdict != "not shown" for one in judged)  # Holm took some back
