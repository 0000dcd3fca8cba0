"""The golden stores of struck rows and of sequences: read by kdcache, and by the specification's table alone."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

from kdcache.errors import InvalidInputError
from kdcache.store.store import Store
from kdcache.whole_store.verify import inspect_files
from tests.golden.make import (
    CLASSES,
    HERE,
    MASKED,
    ROWS,
    SEQUENCE,
    STRUCK,
    TOKENIZER,
    TOKENS,
    K,
    golden_logits,
    golden_pixels,
    golden_texts,
)
from tests.store.test_golden import partners_by_hand, raw

MIXED, FULL, TEXTS = HERE / "format1-struck.kd", HERE / "format1-struck-full.kd", HERE / "format1-sequence.kd"


def commits_of(root: Path) -> list[dict[str, Any]]:
    """The commits of a store of one segment, by block."""
    return [json.loads(path.read_bytes()) for path in sorted(root.glob("kdcache/views-*/commits/000/*.json"))]


@pytest.mark.parametrize("view", [0, 1])
def test_struck_rows_by_the_table_alone(view: int) -> None:
    """A struck sample has no answer, nor has its partner where they pair; their rows hold fixed numbers."""
    assert [commit["struck"] for commit in commits_of(MIXED)] == [[3, 17], [66]]
    partners = partners_by_hand(11, view)
    struck = np.isin(np.arange(ROWS), STRUCK) | np.isin(partners, STRUCK)
    assert struck.sum() == 6
    segment = "views-00000-00002"
    arrays = {name: raw(MIXED, f"{segment}/{name}")[view] for name in ("classes", "gaps", "tail", "label", "pixels")}
    assert (arrays["classes"][struck] == CLASSES).all()
    assert (arrays["classes"][~struck] < CLASSES).all()
    assert (arrays["label"][struck] == 65535).all()
    assert not arrays["gaps"][:, struck].any()
    assert not arrays["tail"][:, struck].any()
    assert not arrays["pixels"][struck].any()
    np.testing.assert_array_equal(arrays["pixels"][~struck], golden_pixels(view, view + 1)[0, ~struck])
    canary = raw(MIXED, f"{segment}/canary")[view]
    assert not canary[struck[:64]].any()
    assert (canary[~struck[:64]] == 77).all()

    store = Store.open(MIXED)
    assert store.struck(view).tolist() == np.flatnonzero(struck).tolist()
    best = np.argsort(-_exact(view, ROWS), axis=1, kind="stable")[:, :K]
    np.testing.assert_array_equal(store.load(view, np.flatnonzero(~struck)).arrays["classes"], best[~struck])
    with pytest.raises(InvalidInputError, match=r"no answer at positions 3, which are struck"):
        store.read(view, [2, 3])
    assert inspect_files(str(MIXED)).whole


def test_struck_rows_of_all_logits_are_nan_in_every_class() -> None:
    stored = raw(FULL, "views-00000-00001/logits")[0]
    assert set(stored[list(STRUCK)].view("u2").ravel().tolist()) == {0x7E00}
    others = np.setdiff1d(np.arange(ROWS), STRUCK)
    np.testing.assert_array_equal(stored[others], _exact(0, ROWS).astype("f2")[others])
    assert Store.open(FULL).struck(0).tolist() == list(STRUCK)
    assert inspect_files(str(FULL)).whole


def test_sequences_by_the_table_alone() -> None:
    ids, labels, order = golden_texts()
    manifest = json.loads((TEXTS / "kdcache/manifest.json").read_bytes())
    assert manifest["identity"]["dataset"]["sequence"] == SEQUENCE
    assert [path.name for path in sorted((TEXTS / "views-00000-00001").iterdir()) if path.is_dir()] == [
        "classes",
        "gaps",
        "label",
        "pixels",
        "tail",
    ]
    stored = raw(TEXTS, "order")
    assert (stored.reshape(-1, SEQUENCE) == stored[::SEQUENCE, None] + np.arange(SEQUENCE)).all()
    np.testing.assert_array_equal(stored, order)
    np.testing.assert_array_equal(raw(TEXTS, "labels"), labels[order])
    pixels = raw(TEXTS, "views-00000-00001/pixels")[0]
    for position, index in enumerate(order.tolist()):
        token = position % SEQUENCE
        text = ids[index - token : index + 1]
        data = b"int32[8]" + struct.pack(f"<{len(text)}i", *text.tolist()) + struct.pack("<q", token)
        assert pixels[position] == xxhash.xxh3_64_intdigest(data) & 0xFF

    store = Store.open(TEXTS)
    assert (store.identity.dataset.sequence, store.segments[0].layout.block) == (SEQUENCE, 64)
    best = np.argsort(-_exact(0, TOKENS), axis=1, kind="stable")[:, :K]
    np.testing.assert_array_equal(store.load(0, np.arange(TOKENS)).arrays["classes"], best)
    assert inspect_files(str(TEXTS)).whole


def test_a_tokenizer_is_one_key_more() -> None:
    plain, known = (
        json.loads((root / "kdcache/manifest.json").read_bytes())["identity"]["dataset"]
        for root in (TEXTS, HERE / "format1-tokenizer.kd")
    )
    assert known == plain | {"tokenizer": TOKENIZER}
    assert Store.open(HERE / "format1-tokenizer.kd").identity.dataset.tokenizer == TOKENIZER


def _exact(view: int, rows: int) -> np.ndarray:
    """[N, C] f64 logits of the golden teacher less the top one, the masked class at -inf."""
    logits = golden_logits(view, view + 1, rows)[0].astype("f8")
    logits[:, MASKED] = -np.inf
    return logits - logits.max(axis=1, keepdims=True)
