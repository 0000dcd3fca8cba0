"""demo: the main job on real data, from teacher to two students."""

from pathlib import Path

import pytest

from kdcache.errors import InvalidInputError
from kdcache.pipelines.demos import digits as module
from kdcache.pipelines.demos.digits import demo
from kdcache.store.store import Store


def test_the_demo_leaves_teacher_store_and_students(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TEACHER_EPOCHS", 3)
    monkeypatch.setattr(module, "STUDENT_EPOCHS", 3)
    monkeypatch.setattr(module, "VIEWS", 2)
    seen: list[str] = []
    summary = demo(tmp_path / "demo", progress=lambda what, done, total: seen.append(what))
    rows = {row.what: row for row in summary.rows}
    assert list(rows) == ["teacher", "store of 2 views", "student with the store", "student alone"]
    assert {"teacher", "store", "student with the store", "student alone"} <= set(seen)
    assert all(row.accuracy is not None and 0.1 < row.accuracy <= 1 and row.seconds > 0 for row in summary.rows)
    assert rows["teacher"].accuracy is not None
    assert rows["teacher"].accuracy > 0.9
    for name in ("student with the store", "student alone"):
        assert rows[name].agreement is not None
        assert 0 < rows[name].agreement <= 1
    assert (rows["teacher"].agreement, rows["store of 2 views"].agreement) == (None, None)
    store = Store.open(summary.store)
    assert (store.content_id, store.every_view, store.rows) == (summary.content_id, (0, 1), 1438)
    assert 5 < summary.bytes_a_row < 40
    for run in ("teacher", "student-kd", "student-alone"):
        for name in ("settings.json", "metrics.jsonl", "weights/last.safetensors", "weights/best.safetensors"):
            assert (tmp_path / "demo" / run / name).is_file()

    again = demo(tmp_path / "demo")
    assert [row.accuracy for row in again.rows] == [row.accuracy for row in summary.rows]
    assert again.content_id == summary.content_id


def test_the_demo_leaves_another_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear reader")
    with pytest.raises(InvalidInputError, match="is not empty; choose another folder for the demo"):
        demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
