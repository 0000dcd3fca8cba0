"""The `door` of a test: commands in a folder of their own, held against the situation that the test is marked with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.doors import LEFT, Door, situation_of
from tests.kits.guide import message_of


@pytest.fixture
def door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> Iterator[Door]:
    """Commands run in `door.folder`. Where the test is marked `situation`, the last command must have ended with its
    exit code, have left on disk what it names, and some command must have printed a text of the page."""
    monkeypatch.chdir(tmp_path)
    door = Door(tmp_path, capsys)
    yield door
    row = situation_of(request.node.iter_markers())
    if row is not None:
        assert door.outcome is not None
        assert door.outcome.exit_code == row.exit_code, door.outcome
        LEFT[row.left](door)
        message = message_of(row)
        assert message is None or message.is_seen(door.printed), (
            f"{row.situation} prints no {message.seen}: {door.printed}"
        )
