"""Attacks by the keys of encodings: draws, a tail's mass and taps are bounded, checked and named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdcache.store.store import Store
from tests.faults.test_attacks import MANIFEST, identity, swapped
from tests.kits.attacks import SEGMENT, attacked, good_store, read_digest, rewrite_segment, set_identity

DRAWN = {"name": "sampled", "features": 0, "head": 0, "draws": 5, "draw_temperature": 2.0}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return good_store(tmp_path_factory.mktemp("good") / "good.kd")


@pytest.fixture(scope="module")
def truth(good: Path) -> str:
    return read_digest(Store.open(good), everything=True)


def taps(*taps: Any) -> Callable[[Path], None]:
    return identity("encoding.taps", list(taps))


def forged(field: str, value: Any, *arrays: str) -> Callable[[Path], None]:
    """An identity of which metadata and segment.json follow, over arrays that were never written."""

    def make(store: Path) -> None:
        set_identity(store, field, value)
        for name in arrays:
            (store / SEGMENT / name).mkdir()
        rewrite_segment(store)

    return make


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "2^40 draws": (identity("encoding", {**DRAWN, "draws": 2**40}), "a row takes 2199023255552 bytes"),
    "no draws": (identity("encoding", {**DRAWN, "draws": 0}), "draws: Input should be greater than or equal to 1"),
    "draws at T = Infinity": (identity("encoding", {**DRAWN, "draw_temperature": float("inf")}), "Infinity"),
    "draws at T = 1e999": (swapped(MANIFEST, b'"encoding":{', b'"encoding":{"draw_temperature":1e999,'), "1e999"),
    "draws at T = -1": (identity("encoding", {**DRAWN, "draw_temperature": -1.0}), "draw_temperature: Input should be"),
    "draws that were never written": (forged("encoding", DRAWN, "draws"), "draws"),
    "a list of tails": (identity("encoding.tail", ["mass"]), "tail: Input should be 'sketch' or 'mass'"),
    "mass in place of a sketch": (forged("encoding.tail", "mass"), "committed were"),
    "mass with class means": (
        lambda store: (identity("encoding.tail", "mass")(store), identity("encoding.class_means", True)(store))[1],
        "class means need logits of the tail",
    ),
    "a tap that leads out": (taps({"name": "../../outside", "shape": [1]}), "'../../outside' is not 1 to 200 letters"),
    "a tap that is a newline": (taps({"name": "map\n", "shape": [1]}), "is not 1 to 200 letters"),
    "a tap of 2^128": (taps({"name": "map", "shape": [2**32] * 4}), "bytes in one array, allowed are 1048576"),
    "a tap of 1 MiB and 2 bytes": (taps({"name": "map", "shape": [2**19 + 1]}), "a row takes 1048578 bytes"),
    "a tap of no values": (taps({"name": "map", "shape": [4, 0]}), "shape.1: Input should be greater"),
    "a tap without axes": (taps({"name": "map", "shape": []}), "shape: Tuple should have at least 1 item"),
    "a tap of 200,000 axes": (taps({"name": "map", "shape": [1] * 200_000}), "at most 4 items"),
    "20,000 taps": (taps(*({"name": f"map{n}", "shape": [1]} for n in range(20_000))), "20000 taps are listed"),
    "a tap twice": (taps({"name": "map", "shape": [1]}, {"name": "map", "shape": [2]}), "'map' is listed twice"),
    "a tap with a dtype": (taps({"name": "map", "shape": [1], "dtype": "object"}), "dtype"),
    "a tap that was never written": (forged("encoding.taps", [{"name": "map", "shape": [1]}], "taps.0"), "taps.0"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_hostile_encoding_is_refused_by_name(good: Path, truth: str, tmp_path: Path, name: str) -> None:
    make, named = HOSTILE[name]
    outcome = attacked(good, tmp_path, make)
    assert "verify" in outcome.refused, outcome.text
    assert named in outcome.text
    assert outcome.steps["everything"] == truth or "everything" in outcome.refused, "other data were read in silence"
