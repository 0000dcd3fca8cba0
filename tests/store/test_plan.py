"""plan: views as a pure function of numbers, mixing partners as an involution, and literal values that pin both."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from kdcache.store.plan import (
    GROUP,
    LAMBDA_STEP,
    TransformSpec,
    ViewPlan,
    key_word,
    mixing_of,
    partners_of,
    partners_of_group,
    whole_pairs,
)

Mix = Literal["none", "mixup", "cutmix"]
SIZE = (32, 48)


def plan_of(mix: Mix, seed: int = 7, alpha: float = 1.0) -> ViewPlan:
    return ViewPlan(transform=TransformSpec(name="crop"), mix=mix, mix_alpha=alpha, seed=seed)


def test_key_words_are_pinned() -> None:
    """These numbers are part of format 1: another value replays other views on every store there is."""
    assert key_word(0, 0, 0, "torch") == 0xDF3D1BE13A43EE91
    assert key_word(7, 123_456, 3, "torch") == 0x62F97626A1523F92
    assert key_word(7, 123_456, 3, "random") == 0x94D1075CB446A627
    assert key_word(7, 123_456, 3, "numpy") == 0x500EF5A6C46DFD4D
    assert key_word(2**63 - 1, 2**40, 99_999, "mix") == 0x649D4C83D97A9124


def test_mixing_is_pinned() -> None:
    assert partners_of_group(7, 2, 1, 150)[:10].tolist() == [138, 148, 139, 147, 142, 137, 144, 146, 149, 133]
    positions = np.arange(128, 134)
    mixup = mixing_of(plan_of("mixup", alpha=0.2), positions, 1, 150, SIZE)
    assert (mixup.lam * 2**16).tolist() == [432, 65513, 65536, 56122, 57674, 2]
    assert not mixup.boxes.any()
    cutmix = mixing_of(plan_of("cutmix"), positions, 1, 150, SIZE)
    assert cutmix.boxes.tolist() == [
        [18, 5, 48, 31],
        [0, 23, 9, 32],
        [5, 9, 17, 17],
        [15, 0, 48, 25],
        [0, 0, 23, 16],
        [39, 21, 48, 31],
    ]


def test_keys_differ_between_streams_views_samples_and_seeds() -> None:
    words = {
        key_word(seed, index, view, stream)
        for seed in range(3)
        for index in range(5)
        for view in range(4)
        for stream in ("torch", "random", "numpy", "mix")
    }
    assert len(words) == 3 * 5 * 4 * 4
    assert len({word & 0xFFFFFFFF for word in words}) == len(words)  # torch and numpy use 32 bits of them


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**63 - 1), st.integers(1, 300), st.integers(0, 50))
def test_partners_are_an_involution_within_the_group(seed: int, rows: int, view: int) -> None:
    for group in range(-(-rows // GROUP)):
        partners = partners_of_group(seed, group, view, rows)
        members = np.arange(group * GROUP, min((group + 1) * GROUP, rows))
        assert sorted(partners.tolist()) == members.tolist()
        np.testing.assert_array_equal(partners[partners - members[0]], members)
        assert (partners == members).sum() == len(members) % 2  # only the odd one out stays alone


def test_partners_change_with_the_view_the_seed_and_the_group() -> None:
    offsets = [
        partners_of_group(seed, group, view, 1000) - group * GROUP
        for seed, group, view in [(1, 0, 0), (1, 0, 1), (2, 0, 0), (1, 1, 0)]
    ]
    assert len({tuple(offset.tolist()) for offset in offsets}) == 4


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200), st.sampled_from(["mixup", "cutmix"]), st.data())
def test_a_subset_keeps_partners_lambdas_and_boxes(rows: int, mix: Mix, data: st.DataObject) -> None:
    positions = np.array(data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=20)))
    plan = plan_of(mix)
    everyone = mixing_of(plan, np.arange(rows), 3, rows, SIZE)
    some = mixing_of(plan, positions, 3, rows, SIZE)
    np.testing.assert_array_equal(some.partners, everyone.partners[positions])
    np.testing.assert_array_equal(some.lam, everyone.lam[positions])
    np.testing.assert_array_equal(some.boxes, everyone.boxes[positions])


@pytest.mark.parametrize("size", [(32, 32), (32, 48), (7, 5), (224, 224)])
def test_cutmix_lambda_is_one_less_the_area_of_the_box(size: tuple[int, int]) -> None:
    height, width = size
    mixing = mixing_of(plan_of("cutmix"), np.arange(301), 0, 301, size)
    x1, y1, x2, y2 = mixing.boxes.T
    assert ((x1 >= 0) & (x1 <= x2) & (x2 <= width) & (y1 >= 0) & (y1 <= y2) & (y2 <= height)).all()
    np.testing.assert_array_equal(mixing.lam, 1.0 - (x2 - x1) * (y2 - y1) / (width * height))
    assert len(np.unique(mixing.lam)) > 10


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_both_of_a_pair_share_lambda_and_box(mix: Mix) -> None:
    mixing = mixing_of(plan_of(mix), np.arange(130), 5, 130, SIZE)
    np.testing.assert_array_equal(mixing.lam, mixing.lam[mixing.partners])
    np.testing.assert_array_equal(mixing.boxes, mixing.boxes[mixing.partners])


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_lambda_is_beta_distributed(alpha: float) -> None:
    mixing = mixing_of(plan_of("mixup", alpha=alpha), np.arange(4096), 0, 4096, SIZE)
    np.testing.assert_array_equal(mixing.lam, np.round(mixing.lam / LAMBDA_STEP) * LAMBDA_STEP)
    variance = 1 / (4 * (2 * alpha + 1))  # of Beta(alpha, alpha)
    assert mixing.lam.mean() == pytest.approx(0.5, abs=4 * np.sqrt(variance / 2048))
    assert mixing.lam.var() == pytest.approx(variance, rel=0.15)


def test_the_odd_one_out_stays_unmixed() -> None:
    mixing = mixing_of(plan_of("cutmix"), np.arange(65), 0, 65, SIZE)
    alone = mixing.partners == np.arange(65)
    assert alone.tolist() == [False] * 64 + [True]  # group 0 is even, group 1 has one member
    assert mixing.lam[64] == 1.0
    assert not mixing.boxes[64].any()


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    mixing_of(plan_of("mixup"), np.arange(64), 0, 64, SIZE)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # type: ignore[index]


def test_threads_do_not_disturb_each_other() -> None:
    plan, positions = plan_of("mixup"), np.arange(512)
    alone = [mixing_of(plan, positions, view, 512, SIZE).lam for view in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda view: mixing_of(plan, positions, view, 512, SIZE).lam, range(8)))
    np.testing.assert_array_equal(together, alone)


def test_without_mixing_everyone_is_alone() -> None:
    positions = np.array([5, 3, 99])
    mixing = mixing_of(plan_of("none"), positions, 0, 100, SIZE)
    assert mixing.partners.tolist() == [5, 3, 99]
    assert (mixing.lam == 1.0).all()
    assert partners_of(plan_of("none"), positions, 0, 100) is not positions


def test_whole_pairs_splits_a_subset() -> None:
    plan, positions = plan_of("mixup"), np.array([3, 5, 8, 13, 21, 34, 55, 60, 61, 62, 63, 64])
    pairs, rest = whole_pairs(plan, positions, 2, 200)
    assert sorted([*pairs.ravel().tolist(), *rest.tolist()]) == positions.tolist()
    np.testing.assert_array_equal(partners_of(plan, pairs[:, 0], 2, 200), pairs[:, 1])
    assert not np.isin(partners_of(plan, rest, 2, 200), positions).any()
    pairs, rest = whole_pairs(plan, np.arange(200), 2, 200)
    assert (len(pairs), len(rest)) == (100, 0)
    pairs, rest = whole_pairs(plan_of("none"), positions, 2, 200)
    assert (len(pairs), rest.tolist()) == (0, positions.tolist())


def test_a_plan_survives_json_and_refuses_unknown_keys() -> None:
    plan = plan_of("cutmix")
    assert ViewPlan.model_validate(json.loads(plan.model_dump_json())) == plan
    for wrong in ({"sed": 1}, {"mix": "cutout"}, {"seed": -1}, {"seed": 2**63}, {"mix_alpha": 0}):
        with pytest.raises(ValidationError):
            ViewPlan.model_validate({"transform": {"name": "crop"}, **wrong})
