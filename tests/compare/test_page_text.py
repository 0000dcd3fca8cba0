"""Numbers and names of the page."""

from math import inf, nan

import pytest

from kdcache.pipelines.compare.page_text import class_name, count, cut, percent, probability, scale, setting


def test_long_names_are_cut_by_the_columns_they_take() -> None:
    assert cut("short") == "short"
    assert cut("a" * 30, 10) == "a" * 9 + "…"
    assert cut("猫" * 30, 10) == "猫" * 4 + "…"
    assert cut("猫" * 5, 10) == "猫" * 5
    assert cut("a\u202eb\n", 20) == r"a\x202eb\x0a"


def test_classes_without_a_name_have_a_number() -> None:
    assert [class_name(("cat", " "), number) for number in (-1, 0, 1, 2)] == ["none", "cat", "class 1", "class 2"]


@pytest.mark.parametrize(
    ("unit", "values", "texts"),
    [
        ("share", [0.912345, 1.0, 0.0], ["91.2", "100.0", "0.0"]),
        ("nats", [1.23456, 0.5, -0.25], ["1.235", "0.500", "−0.250"]),
        ("probability", [0.0123456], ["1.23"]),
        ("nats", [0.0123456], ["0.0123"]),
        ("numbers", [11_173_962.0, 950.0], ["11.17 M", "950"]),
        ("nats", [12.0, 1e-5], ["12.00", "1e−05"]),
        ("p value", [0.04321, 1e-9], ["0.043", "< 0.0001"]),
        ("nats", [inf, nan, 2.0], ["∞", "–", "2.000"]),
        ("", [0.0], ["0.00"]),
    ],
)
def test_a_column_has_its_digits(unit: str, values: list[float], texts: list[str]) -> None:
    column = scale(unit, values)
    assert [column.text(value) for value in values] == texts


def test_differences_have_a_sign_and_zero_has_none() -> None:
    column = scale("share", [0.9])
    assert [column.text(value, signed=True) for value in (0.01, -0.01, -0.000001)] == ["+1.00", "−1.00", "0.00"]


def test_single_numbers() -> None:
    assert [percent(value) for value in (0.123456, 1.0, -0.0, nan)] == ["12.35 %", "100.0 %", "0.00 %", "–"]
    assert [count(value, 1) for value in (3.25, 999.94, 12_345.6)] == ["3.2", "999.9", "12,346"]
    assert [probability(value) for value in (1.0, 0.0312, 1e-5, nan)] == ["1", "0.031", "< 0.0001", "–"]


def test_settings_are_short_text() -> None:
    assert [setting(value) for value in (None, True, 0.1, -3, [1, "a"], {"b": []})] == [
        "–", "yes", "0.1", "-3", "1, a", "b –",
    ]  # fmt: skip
    assert len(setting("x" * 9999)) == 400
