"""docs/reliability.md: the files of tests that it names are there, and sizes are those of `make torture`."""

import re

from tests.kits.house import ROOT
from tests.torture.__main__ import PROMISES

PAGE = (ROOT / "docs/reliability.md").read_text()
SIZES = {
    "kills": "kills of writers",
    "writers": "stores by 2 and 4 writers at once",
    "damages": "damages",
    "fuzz": "mutations of records",
    "states": "random sequences against the model",
}


def test_every_promise_names_tests_that_are_there() -> None:
    rows = [line for line in PAGE.splitlines() if re.search(r"`\w+/test_\w+\.py` \|$", line)]
    assert len(rows) >= 15
    assert [
        name
        for row in rows
        for name in re.findall(r"`(\w+/test_\w+\.py)`", row)
        if not (ROOT / "tests" / name).is_file()
    ] == []


def test_the_sizes_are_those_that_are_run() -> None:
    for name, (_, count) in PROMISES.items():
        assert f"| {SIZES[name]} | {count:,} |" in PAGE
    assert set(re.findall(r"--(\w+) [0-9]+", PAGE)) == PROMISES.keys()
