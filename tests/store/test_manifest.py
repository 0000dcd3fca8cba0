"""Identity: what is refused while it is built, what is told apart, and what later versions may add."""

import json
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from kdcache.base.canonical import canonical_json, parse_json
from kdcache.base.records import explain, require_equal, validated
from kdcache.errors import FormatError, InvalidInputError, MismatchError
from kdcache.labels.encodings import encoding_of
from kdcache.labels.full import FullEncoding
from kdcache.store.manifest import Identity, Provenance, TeacherIdentity, parse_manifest
from kdcache.store.plan import TransformSpec, ViewPlan
from tests.kits.stores import make_identity


@pytest.mark.parametrize("masked", [(1, 1), (3,), (-1,), (2, 0)])
def test_masked_classes_are_distinct_ascending_ids(masked: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match="masked classes"):
        TeacherIdentity(name="t", weights="w", classes=3, masked_classes=masked)


@pytest.mark.parametrize(
    ("class_map", "problem"),
    [
        ((0, 1, 2, 3), "holds 3, not -1 or a class below 3"),
        ((0, 1, 2, -2), "holds -2, not -1"),
        ((0, 1, 1, -1), "holds class 1 twice"),
        ((0, 1, -1), "leaves out class 2, which is not masked"),
        ((-1, -1), "leaves out class 0"),
        ((0, 1.0, 2), "valid integer"),
        ((0, True, 2), "valid integer"),
    ],
)
def test_a_class_map_gives_every_class_that_is_not_masked_once(class_map: tuple[int, ...], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        TeacherIdentity(name="t", weights="w", classes=3, class_map=class_map)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"subclasses": 5}, "12 logits are not of two classes or more with 5 subclasses"),
        ({"subclasses": 12}, "12 logits are not of two classes or more with 12"),
        ({"subclasses": 0}, "greater than or equal to 1"),
        ({"subclasses": True}, "valid integer"),
        ({"subclasses": 3, "masked_classes": (1,)}, "3 subclasses go with no class map and no masked classes"),
        ({"subclasses": 3, "class_map": tuple(reversed(range(12)))}, "3 subclasses go with no class map"),
    ],
)
def test_subclasses_divide_the_logits_of_two_classes_or_more(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        TeacherIdentity(name="t", weights="w", classes=12, **values)


def test_subclasses_are_kept_whole() -> None:
    identity = make_identity(np.arange(4), np.zeros(4), classes=12, encoding=FullEncoding()).model_dump()
    identity["teacher"]["subclasses"] = 3
    assert Identity.model_validate(identity).space.subclasses == 3
    identity["encoding"] = {"name": "topk", "k": 4, "quantisation": "default", "features": 0, "head": 0}
    with pytest.raises(ValidationError, match="3 subclasses need all logits, not top 4"):
        Identity.model_validate(identity)


def test_keys_that_came_later_are_absent_at_their_defaults() -> None:
    teacher = TeacherIdentity(name="t", weights="w", classes=3)
    assert not {"class_map", "answers", "subclasses"} & teacher.model_dump().keys()
    later = TeacherIdentity(
        name="t", weights="w", classes=3, masked_classes=(1,), class_map=(2, -1, 0, -1), answers="probs"
    )
    record = later.model_dump(mode="json")
    assert (record["class_map"], record["answers"]) == ([2, -1, 0, -1], "probs")
    assert TeacherIdentity.from_bytes(later.to_bytes(), "manifest") == later
    assert "block_rule" not in encoding_of({"name": "topk", "k": 3}).model_dump()
    for rule in (0, 3, True, 2.0, "2", None):
        with pytest.raises(ValueError, match=r"block_rule: .*given"):
            encoding_of({"name": "full", "k": None, "block_rule": rule})


@pytest.mark.parametrize(("name", "k"), [("topk", None), ("full", 3)])
def test_k_belongs_to_topk(name: str, k: int | None) -> None:
    with pytest.raises(ValueError, match=f"k: Input should be .*given {k}"):
        encoding_of({"name": name, "k": k})


def test_a_number_that_json_cannot_hold_is_refused() -> None:
    teacher = TeacherIdentity(name="t", weights="w", classes=3, arguments={"dropout": float("nan")})
    with pytest.raises(InvalidInputError, match="finite"):
        teacher.to_bytes()
    with pytest.raises(InvalidInputError, match="Unicode"):
        canonical_json({"name": "\ud800"})
    with pytest.raises(ValidationError):
        ViewPlan(transform=TransformSpec(name="none"), mix="mixup", mix_alpha=float("inf"))


def test_equal_values_of_other_types_are_other_settings() -> None:
    one = TransformSpec(name="none", arguments={"size": 1})
    with pytest.raises(MismatchError, match="other types"):
        require_equal(one, TransformSpec(name="none", arguments={"size": True}), "plans differ", "use one")
    require_equal(one, TransformSpec(name="none", arguments={"size": 1}), "plans differ", "use one")


def test_a_mismatch_names_the_field_and_both_values() -> None:
    stored = TeacherIdentity(name="a", weights="w", classes=3, arguments={"width": 1})
    given = TeacherIdentity(name="a", weights="v", classes=3, arguments={"width": 2})
    with pytest.raises(MismatchError) as caught:
        require_equal(stored, given, "teachers differ:", "do this next", "teacher.")
    assert caught.value.differences == (("teacher.arguments.width", "1", "2"), ("teacher.weights", "'w'", "'v'"))
    assert str(caught.value).endswith("do this next")


def test_provenance_of_a_later_version_survives_a_round_trip() -> None:
    later = b'{"device":"cpu","cpu_capability":"","data":"","decoder":"","driver":"595.1","versions":{}}\n'
    assert Provenance.from_bytes(later, "commit").to_bytes() == canonical_json(json.loads(later))
    with pytest.raises(FormatError, match="extra"):
        FullEncoding.from_bytes(b'{"name":"full","extra":1}', "manifest")


def test_records_that_are_none_are_refused_by_name() -> None:
    for data in (b"", b"[1]", b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(FormatError, match=r"the file"):
            parse_json(data, "the file")
    with pytest.raises(FormatError, match="upgrade kdcache"):
        parse_manifest(b'{"identity":{"format":2}}', "manifest")


def test_missing_settings_are_listed_in_one_line() -> None:
    with pytest.raises(InvalidInputError, match="name, weights, classes must be given"):
        validated(TeacherIdentity, "teacher")
    with pytest.raises(ValidationError) as caught:
        TeacherIdentity(name="t", weights="w", classes=1)
    assert "classes" in explain(caught.value)
    assert "given 1" in explain(caught.value)
