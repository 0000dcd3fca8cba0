"""Fuzzed records: whatever a file holds, reading is right or refused by an error of ours, and nothing hangs."""

from pathlib import Path

import pytest

from kdcache.labels.sampled import SampledEncoding
from tests.kits.damage import OUTPUTS, rich_store
from tests.kits.fuzz import DRAWN_RECORDS, RECORDS, fuzz

EXAMPLES = 20


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rich_store(tmp_path_factory.mktemp("rich") / "rich.kd")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    encoding = SampledEncoding(draws=4, draw_temperature=2.0, **OUTPUTS)
    return rich_store(tmp_path_factory.mktemp("drawn") / "drawn.kd", encoding)


@pytest.mark.parametrize("record", DRAWN_RECORDS)
def test_no_record_of_draws_is_trusted(drawn: Path, record: str) -> None:
    fuzz(drawn, record, EXAMPLES)


@pytest.mark.parametrize("record", RECORDS)
def test_no_record_is_trusted(rich: Path, record: str) -> None:
    fuzz(rich, record, EXAMPLES)
