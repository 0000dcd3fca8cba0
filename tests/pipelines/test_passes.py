"""extract: a number of views names what a store lacks; a range that overlaps another is refused with a command."""

from pathlib import Path
from typing import Any

import pytest

from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError
from kdcache.pipelines.extract.passes import spans_to_extract
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import ExtractSettings, load_settings
from kdcache.store.store import Store
from tests.kits import stages
from tests.kits.stages import Stage

stage = stages.stage


def spans(stage: Stage, store: str | Path, views: Any) -> list[str]:
    """The spans that an extraction of some views goes through."""
    return [str(span) for span in spans_to_extract(stage.asked(store, views=views))]


def test_a_number_is_what_a_store_is_to_have(stage: Stage, tmp_path: Path) -> None:
    assert spans(stage, tmp_path / "new.kd", 6) == ["0:6"]
    assert spans(stage, stage.store, 2) == spans(stage, stage.store, "0:2") == ["0:2"]
    assert spans(stage, stage.store, 1) == ["0:2"]
    assert spans(stage, stage.store, "6") == spans(stage, stage.store, 6) == ["2:6"]
    assert spans(stage, stage.store, "4:6") == ["4:6"]


def test_unfinished_views_come_first(stage: Stage, tmp_path: Path) -> None:
    store = stage.copy(tmp_path / "part.kd")
    opened = Store.open_for_writing(store)
    opened.add_segment(ViewSpan(3, 5))
    assert spans(stage, store, 6) == ["3:5", "2:3", "5:6"]
    assert spans(stage, store, 2) == ["3:5"]


def test_a_store_grows_to_a_number_of_views(stage: Stage, tmp_path: Path) -> None:
    store = stage.copy(tmp_path / "digits.kd")
    Store.open_for_writing(store).add_segment(ViewSpan(2, 3))
    summary = extract(stage.asked(store, views=4))
    assert str(summary.views) == "3:4"
    assert any("this call also extracted views 2:3: " in note for note in summary.notes)
    assert Store.open(store).every_view == (0, 1, 2, 3)
    again = extract(stage.asked(store, views=3))
    assert again.blocks == again.blocks_done_before
    assert Store.open(store).content_id == summary.content_id


@pytest.mark.parametrize(("views", "words"), [("0:6", "--views 2:6"), ("1:2", "--views 0:2")], ids=str)
def test_a_range_over_another_is_refused_with_the_command_that_works(stage: Stage, views: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match=f"views {views} overlap 0:2, which .* has already.*") as refused:
        spans(stage, stage.store, views)
    assert f" {words} " in f"{refused.value} "
    assert f"kdcache extract {stage.store} " in str(refused.value)


def test_toml_takes_numbers_and_ranges(tmp_path: Path) -> None:
    config = tmp_path / "extract.toml"
    for text, count, span in (("views = 6", True, (0, 6)), ('views = "2:6"', False, (2, 6))):
        config.write_text(f'store = "x.kd"\nteacher = "a.py:b"\ndata = "digits"\n{text}\n')
        views = load_settings(ExtractSettings, {}, str(config)).views
        assert (views.is_count, (views.start, views.stop)) == (count, span)
