"""Many writers and many deaths: nothing is lost, and nothing of two writers is mixed without a word."""

from pathlib import Path

import pytest

from tests.kits.kills import check_rows, kill_many, run_writers

KILLS = 60


@pytest.mark.parametrize("noisy", [False, True], ids=["equal", "noisy"])
@pytest.mark.parametrize("count", [2, 4])
def test_writers_at_once_lose_and_mix_nothing(tmp_path: Path, count: int, noisy: bool) -> None:
    run_writers(tmp_path / "a.kd", count, noisy)
    seen = check_rows(tmp_path / "a.kd", count, noisy)
    assert seen["blocks"] == 8
    assert noisy or seen["mixed"] == 0


def test_a_block_is_whole_or_absent_under_sigkill(tmp_path: Path) -> None:
    seen = kill_many(tmp_path, KILLS)
    assert seen["kills"] >= KILLS
    assert seen["blocks"] == 8 * seen["stores"]
    assert seen["one writer's"] + seen["mixed"] == seen["blocks"]
