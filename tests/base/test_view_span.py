"""ViewSpan: one parser for what people write, one pair on disk, and the rest refused with what would do."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.base.records import Record
from kdcache.base.view_span import ViewSpan, WrittenSpan, shown_spans
from kdcache.cli.app import main
from kdcache.errors import FormatError, InvalidInputError
from kdcache.pipelines.settings import ExtractSettings, TrainSettings, load_settings
from kdcache.store.manifest import Identity
from tests.kits.stores import make_case


class Held(Record):
    """A record with a span, as seals have."""

    views: ViewSpan


@pytest.mark.parametrize(
    ("given", "span"),
    [
        (2, ViewSpan(0, 2)),
        ("2", ViewSpan(0, 2)),
        ("0:10", ViewSpan(0, 10)),
        ("10:20", ViewSpan(10, 20)),
        (ViewSpan(3, 4), ViewSpan(3, 4)),
        ("99999:100000", ViewSpan(99_999, 100_000)),
    ],
)
def test_what_people_write(given: object, span: ViewSpan) -> None:
    assert ViewSpan.parse(given) == span
    assert ViewSpan.parse(str(span)) == span


@pytest.mark.parametrize(
    "given", ["", "0", 0, "3:3", "4:2", "-1", -1, "1:-2", "a", "1:2:3", " 2", "２", 2.0, True, None, (0, 2), "9" * 30]
)
def test_what_is_no_span_is_refused_naming_it(given: object) -> None:
    with pytest.raises(InvalidInputError, match=r"views .*(such as 10:20|start:stop|0 to 100000)"):
        ViewSpan.parse(given)


@pytest.mark.parametrize("given", ["100001", "0:100001", "100000:100001"])
def test_no_span_ends_beyond_what_a_store_may_have(given: str) -> None:
    with pytest.raises(InvalidInputError, match=f"views {re.escape(str(given)) if ':' in given else '0:100001'} were"):
        ViewSpan.parse(given)


def test_a_span_is_its_views() -> None:
    span = ViewSpan(2, 5)
    assert (list(span), len(span), str(span)) == ([2, 3, 4], 3, "2:5")
    assert 4 in span
    assert 5 not in span
    assert span.overlaps(ViewSpan(4, 9))
    assert not span.overlaps(ViewSpan(5, 9))
    assert ViewSpan(3, 5).within(span)
    assert not span.within(ViewSpan(3, 5))
    assert shown_spans([ViewSpan(0, 2), span]) == "0:2, 2:5"
    with pytest.raises(InvalidInputError, match="views 5:5 are none"):
        ViewSpan(5, 5)


def test_a_record_holds_two_numbers_and_nothing_else() -> None:
    assert Held(views=ViewSpan(0, 2)).to_bytes() == b'{"views":[0,2]}\n'
    assert Held.from_bytes(b'{"views":[0,2]}', "x").views == ViewSpan(0, 2)
    for hostile in ('"0:2"', "2", "[0]", "[0,2,4]", "[2,0]", "[1,1]", "[-1,2]", "[0,100001]", "[0,2.0]", "[0,true]",
                    '["0","2"]', "null", "{}", "[]"):  # fmt: skip
        with pytest.raises(FormatError, match="views are two numbers"):
            Held.from_bytes(f'{{"views":{hostile}}}'.encode(), "x")


def test_on_disk_the_plan_of_views_keeps_its_key() -> None:
    identity = make_case(70).identity
    record = identity.model_dump(mode="json")
    assert record["views"] == identity.plan.model_dump(mode="json")
    assert "plan" not in record
    assert Identity.model_validate(record) == identity
    with pytest.raises(ValueError, match="plan"):
        Identity.model_validate({**record, "plan": record["views"]})


@pytest.mark.parametrize("written", ["views = 2", 'views = "2"', 'views = "0:2"'])
@pytest.mark.parametrize("model", [ExtractSettings, TrainSettings])
def test_a_settings_file_takes_numbers_and_ranges(tmp_path: Path, model: Any, written: str) -> None:
    (tmp_path / "x.toml").write_text(f'{written}\ndata = "digits"\n')
    flags = (
        {"store": ["s"], "run": "r", "student": "x:y"} if model is TrainSettings else {"store": "s", "teacher": "x:y"}
    )
    assert load_settings(model, flags, str(tmp_path / "x.toml")).views == ViewSpan(0, 2)


@pytest.mark.parametrize("given", ["views = 2.5", "views = [0, 2]", 'views = "2:1"', "views = true", "views = 0"])
def test_a_settings_file_with_no_span_is_refused(tmp_path: Path, given: str) -> None:
    (tmp_path / "x.toml").write_text(f'{given}\ndata = "digits"\n')
    with pytest.raises(InvalidInputError, match=r"views: .*views .*(such as 10:20|start:stop)"):
        load_settings(ExtractSettings, {"store": "s", "teacher": "x:y"}, str(tmp_path / "x.toml"))


@pytest.mark.parametrize("command", [["pull", "a", "b"], ["diff", "a", "b"], ["recode", "a", "b", "--top-k", "2"]])
def test_every_command_parses_alike(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--views", "2:1"])
    assert stopped.value.code == 2
    assert "views 2:1 are none; a span holds one view or more: write start:stop" in capsys.readouterr().err


def test_a_written_span_is_a_field() -> None:
    class Asked(Record):
        views: WrittenSpan | None = None

    assert Asked(views="3").views == ViewSpan(0, 3)  # type: ignore[arg-type]
    assert Asked.model_validate(Asked(views="2:3").model_dump()).views == ViewSpan(2, 3)  # type: ignore[arg-type]
    assert Asked().views is None
    assert np.array_equal(list(ViewSpan.of(4)), [4])
