"""segments: two writers of views that overlap do not both get them, and a store that has both is refused by name."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kdcache.base.canonical import canonical_json
from kdcache.base.view_span import ViewSpan
from kdcache.errors import DamagedError, InvalidInputError
from kdcache.places.place import Place
from kdcache.store import segment_layout
from kdcache.store.layout import describe_segment
from kdcache.store.segment import Segment
from kdcache.store.segment_layout import recorded_views
from kdcache.store.segment_layout import segment_layout as layout_of
from kdcache.store.store import Store
from tests.kits.stores import create_store, make_case, write_views

CASE = make_case(130, views=5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sealed store of views 0 and 1."""
    store = create_store(tmp_path / "a.kd", CASE)
    write_views(store, 0, CASE.logits[:2])
    store.seal()
    return tmp_path / "a.kd"


def test_who_comes_later_is_refused(path: Path) -> None:
    """Both opened the store before either had made its segment."""
    one, other = Store.open_for_writing(path), Store.open_for_writing(path)
    write_views(one, 2, CASE.logits[2:4])
    with pytest.raises(InvalidInputError, match="views 3:5 overlap views 2:4, which another process"):
        other.add_segment(ViewSpan(3, 5))
    store = Store.open_for_writing(path)
    assert store.every_view == (0, 1, 2, 3)
    store.seal()
    assert Store.open(path).every_view == (0, 1, 2, 3)


def test_two_that_meet_leave_no_segment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has written its record when the other looks: both take theirs back, and either may come again."""
    meeting = threading.Barrier(2)

    def met(folder: Place) -> list[ViewSpan]:
        meeting.wait(timeout=60)
        spans = recorded_views(folder)
        meeting.wait(timeout=60)
        return spans

    stores = [Store.open_for_writing(path) for _ in range(2)]
    monkeypatch.setattr(segment_layout, "recorded_views", met)
    with ThreadPoolExecutor(2) as threads:
        spans = (ViewSpan(2, 4), ViewSpan(3, 5))
        tries = [threads.submit(store.add_segment, span) for store, span in zip(stores, spans, strict=True)]
        assert all(isinstance(attempt.exception(), InvalidInputError) for attempt in tries)
    monkeypatch.undo()
    assert Store.open_for_writing(path).every_view == (0, 1)
    write_views(Store.open_for_writing(path), 3, CASE.logits[3:])
    assert Store.open_for_writing(path).every_view == (0, 1, 3, 4)


def test_a_store_that_has_both_is_refused_by_name(path: Path) -> None:
    store = Store.open_for_writing(path)
    Segment(store.folder, store.identity, layout_of(store.identity, ViewSpan(2, 4)), None).create()
    layout = layout_of(store.identity, ViewSpan(3, 5))
    store.folder.put_new(layout.record, canonical_json(describe_segment(layout, store.identity.digest)))
    with pytest.raises(DamagedError, match="views-00002-00004 and views-00003-00005"):
        Store.open_for_writing(path)
    with pytest.raises(DamagedError, match="views-00002-00004 and views-00003-00005"):
        store.seal()
    store.folder.delete(layout.record)
    assert Store.open_for_writing(path).every_view == (0, 1, 2, 3)
