"""objectives of taps: what cannot be joined is refused before the first step, with the next step that works."""

import inspect
import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from kdcache.errors import InvalidInputError, MissingBlockError
from kdcache.objectives.catalogue import TAP_TERMS, describe, make_objective, parameters_of
from kdcache.objectives.joined import wrapped
from kdcache.objectives.maps import vectors
from kdcache.objectives.objective import Objective
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.tap_pairs import Sizes, TeacherSizes
from tests.kits.tap_cases import TapCase, term_loss

CASE = TapCase(
    {"stem": (2, 8, 8), "a": (3, 4, 4), "tokens": (6, 3), "pooled": (3, 1, 1), "features": (3,), "narrow": (4, 4, 8)},
    ({"m": (4, 4, 4), "tokens": (9, 5), "features": (4,)},),
)
BY_FEATURES = ("rkd", "pkt", "crd", "srrl")
COUPLED = {"sp", "rkd", "pkt"}
NO_TEACHER_TAP = ("crd", "srrl")


def made(name: str, sizes: Sizes = CASE.sizes, **settings: Any) -> Objective:
    needed = {} if name in BY_FEATURES or "teacher_tap" in settings else {"teacher_tap": "m"}
    objective = make_objective(name, {**needed, **settings}, sizes=sizes)
    assert isinstance(objective, Objective)
    return objective


def test_each_describes_itself(subtests: pytest.Subtests) -> None:
    assert list(TAP_TERMS) == ["hint", "at", "sp", "rkd", "pkt", "crd", "srrl", "simkd", "mgd", "aligned"]
    for name, term in TAP_TERMS.items():
        with subtests.test(name):
            text = " ".join(inspect.cleandoc(term.__doc__).split())
            assert re.search(r"\b20\d\d\b", text), "a year"
            assert re.search(r"\bExact", text), "how exact it is"
            record = describe(name)
            assert record["rows_meet"] == (name in COUPLED)
            assert (record["on_many_devices"] == "the whole batch on each") == (name in COUPLED)
            assert "taps of student and store" in record["needs"]
            assert record["asks_at"] == []
            assert record["settings"].keys() == parameters_of(name).keys() >= {"student_tap", "w_ce", "w_kd"}
            assert ("teacher_tap" in record["settings"]) == (name not in NO_TEACHER_TAP)
    assert describe("srrl")["needs"][:3] == ["store", "features of each store", "head of each store"]
    assert describe("simkd")["settings"]["w_ce"] == 0


@pytest.mark.parametrize("name", TAP_TERMS)
def test_a_layer_that_the_student_lacks_is_told_with_those_it_has(name: str) -> None:
    message = "the student has no layer layer9; its layers are stem, a, tokens, pooled, features, narrow .kdcache taps"
    with pytest.raises(InvalidInputError, match=message):
        made(name, student_tap="layer9")


@pytest.mark.parametrize("name", TAP_TERMS)
def test_a_tap_that_the_store_lacks_is_told_with_extract_s_flag(name: str) -> None:
    if name in NO_TEACHER_TAP:
        sizes = replace(CASE.sizes, teachers=(TeacherSizes("bare.kd", {"m": (4, 4, 4)}),))
        with pytest.raises(MissingBlockError, match=r"bare.kd keeps m; extract with --keep features"):
            made(name, sizes)
    else:
        with pytest.raises(
            MissingBlockError, match=r"store-0 keeps m, tokens, features; extract with --keep tap:n@2x2"
        ):
            made(name, teacher_tap="n@2x2", student_tap="a")


@pytest.mark.parametrize(
    ("name", "student", "teacher", "advice"),
    [
        ("hint", "a", "tokens", "places of a map and tokens have no common order; pool one of them"),
        ("at", "tokens", "m", "places of a map and tokens have no common order; pool one of them"),
        ("aligned", "a", "tokens", "places of a map and tokens have no common order; pool one of them"),
        ("at", "features", "features", "one place has no attention; name layers that give maps or tokens"),
        ("at", "pooled", "m", "one place has no attention; name layers that give maps or tokens"),
        ("mgd", "tokens", "tokens", "it masks places of maps"),
        ("mgd", "a", "features", "it masks places of maps"),
        ("mgd", "pooled", "m", "it masks places of maps"),
        ("simkd", "tokens", "m", "its projector takes maps"),
        ("simkd", "features", "features", "its projector takes maps"),
        ("simkd", "a", "tokens", "tokens are no map"),
    ],
)
def test_shapes_that_nothing_joins_are_refused_with_both(name: str, student: str, teacher: str, advice: str) -> None:
    with pytest.raises(
        InvalidInputError, match=rf"objective {name} cannot join the student's {student} \[.*\]: {advice}"
    ):
        made(name, student_tap=student, teacher_tap=teacher)


@pytest.mark.parametrize("name", ["srrl", "simkd"])
def test_a_classifier_that_is_not_there_or_does_not_fit(name: str) -> None:
    bare = replace(CASE.sizes, teachers=(TeacherSizes("bare.kd", CASE.teachers[0]),))
    with pytest.raises(MissingBlockError, match=f"{name} needs the teacher's classifier, which bare.kd does not hold"):
        made(name, bare)
    odd = replace(CASE.sizes, teachers=(replace(CASE.sizes.teachers[0], taps={"m": (7, 4, 4), "features": (7,)}),))
    with pytest.raises(InvalidInputError, match="its classifier takes 4 features, the tap has 7; name the layer"):
        made(name, odd)


def test_simkd_refuses_several_stores_and_several_layers() -> None:
    two = replace(CASE, teachers=CASE.teachers * 2)
    with pytest.raises(InvalidInputError, match="answers through one teacher's classifier; 2 stores were given"):
        made("simkd", two.sizes)
    with pytest.raises(InvalidInputError, match="compares one layer, 2 were named"):
        made("simkd", student_tap="a+stem", teacher_tap="m+m")
    with pytest.raises(InvalidInputError, match="factor 5 leaves no channel of 4"):
        made("simkd", factor=5).wrap(torch.nn.Linear(1, 1))


def test_simkd_is_not_joined_with_layers_of_the_student_alone() -> None:
    with pytest.raises(
        InvalidInputError, match=r"SimKD lets the student answer .* Hint sees layers of the student alone"
    ):
        wrapped(
            make_objective("simkd+hint", {"simkd.teacher_tap": "m", "hint.teacher_tap": "m"}, sizes=CASE.sizes),
            torch.nn.Linear(1, 1),
        )


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("at", {"power": 0.5}, "power is 0.5: Input should be greater than or equal to 1"),
        ("mgd", {"ratio": 1.0}, "ratio is 1.0: Input should be less than 1"),
        ("crd", {"tau": 0}, "tau is 0: Input should be greater than 0"),
        ("crd", {"negatives": 0}, "negatives is 0: Input should be greater than or equal to 1"),
        ("crd", {"constant": "other"}, "constant is 'other': Input should be 'fitted' or 'paper'"),
        ("aligned", {"map": "free"}, "map is 'free': Input should be 'assignment', 'learned' or 'given'"),
        ("simkd", {"factor": 0}, "factor is 0: Input should be greater than or equal to 1"),
        ("rkd", {"angle": -1}, "angle is -1: Input should be greater than or equal to 0"),
    ],
)
def test_values_out_of_range_are_refused_with_the_range(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        made(name, **settings)


def test_sizes_that_a_layer_cannot_be_pooled_to_are_refused_at_once() -> None:
    for name, text in (("a@5x4", "5 x 4"), ("features@1x2", "1 x 2"), ("tokens@2x3", "2 x 3"), ("tokens@1x7", "1 x 7")):
        with pytest.raises(InvalidInputError, match=rf"{name.partition('@')[0]} \[.*\] cannot be pooled to {text}"):
            CASE.sizes.student_shape(name)
    assert CASE.sizes.student_shape("a@2x3") == (3, 2, 3)
    assert CASE.sizes.student_shape("tokens@1x4") == (4, 3)
    assert CASE.sizes.student_shape("narrow@2x8") == (4, 2, 8)


def test_a_map_of_as_many_channels_as_rows_is_joined_by_channel() -> None:
    """[C, H, W] of 4 x 4 x 8: a linear map of its channels, the mean of its places."""
    objective = made("hint", student_tap="narrow")
    narrow = torch.randn(5, 4, 4, 8, generator=torch.Generator().manual_seed(1))
    places = narrow.reshape(5, 4, 4, 4, 2).mean(dim=4)  # as wide as the teacher's
    losses = [
        term_loss(objective, Outputs(torch.zeros(5, 5), None, {"narrow": tap}), CASE.batch).item()
        for tap in (narrow, places.repeat_interleave(2, dim=3))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert vectors(narrow).shape == (5, 4)
    torch.testing.assert_close(vectors(narrow), narrow.mean(dim=(2, 3)))


@pytest.mark.parametrize("name", [name for name in TAP_TERMS if name != "simkd"])
def test_a_tap_that_outputs_lack_is_told(name: str) -> None:
    objective = made(name, **({"constant": "paper"} if name == "crd" else {}))
    with pytest.raises(InvalidInputError, match=r"the student's \w+ is needed, and its outputs have none"):
        objective(Outputs(torch.zeros(5, 5)), CASE.batch)
