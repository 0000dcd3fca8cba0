"""Fuzzed records: whatever a file holds, reading is right or refused by an error of ours, and nothing hangs."""

from pathlib import Path

import pytest

from tests.kits.damage import rich_store
from tests.kits.fuzz import RECORDS, fuzz

EXAMPLES = 20


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rich_store(tmp_path_factory.mktemp("rich") / "rich.kd")


@pytest.mark.parametrize("record", RECORDS)
def test_no_record_is_trusted(rich: Path, record: str) -> None:
    fuzz(rich, record, EXAMPLES)
