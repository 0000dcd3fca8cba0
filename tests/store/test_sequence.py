"""Sequences: rows that are the tokens of texts, in whole texts, with fingerprints of their own and no canary."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from pydantic import ValidationError

from kdcache.base.arrays import values_digest
from kdcache.base.view_span import ViewSpan
from kdcache.errors import DamagedError, FormatError, InvalidInputError, MissingBlockError
from kdcache.labels.full import FullEncoding
from kdcache.store.manifest import DatasetIdentity, Identity
from kdcache.store.segment_layout import block_size, segment_layout
from kdcache.store.shards import encode_plain
from kdcache.store.store import Store
from kdcache.store.whole_arrays import make_order, order_spec
from kdcache.views.fingerprint import token_fingerprints
from kdcache.whole_store.verify import inspect_files
from tests.kits.stores import create_store, make_case, make_identity, write_store

ROWS = 192


def identity_of(rows: int, sequence: int, *, classes: int = 3, mix: str = "none") -> Identity:
    order = np.arange(rows)
    return make_identity(order, order, classes=classes, encoding=FullEncoding(), mix=mix, sequence=sequence)


def test_it_is_absent_at_1_so_that_digests_stay() -> None:
    pictures = DatasetIdentity(rows=6, ids="", labels="", probes="", sequence=1)
    assert "sequence" not in pictures.model_dump(mode="json")
    assert DatasetIdentity(rows=6, ids="", labels="", probes="", sequence=2).model_dump(mode="json")["sequence"] == 2


@pytest.mark.parametrize(
    ("rows", "sequence", "error"),
    [
        (192, 0, "greater than or equal to 1"),
        (192, 6, "a sequence of 6 rows divides no block; choose a power of two"),
        (2**15, 2**14, "less than or equal to 8192"),
        (190, 4, "190 rows are not whole sequences of 4; leave the rest out"),
    ],
)
def test_a_sequence_is_a_power_of_two_that_divides_the_rows(rows: int, sequence: int, error: str) -> None:
    with pytest.raises(ValidationError, match=error):
        identity_of(rows, sequence)


def test_sequences_are_not_mixed() -> None:
    with pytest.raises(ValidationError, match=r"sequences of 8 tokens are not mixed by mixup; use none"):
        identity_of(ROWS, 8, mix="mixup")


def test_a_whole_sequence_may_be_decoded_at_once() -> None:
    """64 MiB, whatever the sequence."""
    assert identity_of(8192, 8192, classes=4096).dataset.sequence == 8192
    with pytest.raises(ValidationError, match=r"a row takes 8194 bytes in one array, allowed are 8192"):
        identity_of(8192, 8192, classes=4097)


@pytest.mark.parametrize("sequence", [2, 64, 128, 1024, 8192])
def test_a_block_holds_whole_sequences(sequence: int) -> None:
    for rows in (8192, 2**15, 2**20):
        block = block_size(identity_of(rows, sequence), ViewSpan(0, 2))
        assert block % sequence == 0
        assert block == max(sequence, block_size(identity_of(rows, 1), ViewSpan(0, 2)))


def test_it_has_no_canary_and_all_else(tmp_path: Path) -> None:
    layout = segment_layout(identity_of(ROWS, 8), ViewSpan(0, 2))
    assert "canary" in segment_layout(identity_of(ROWS, 1), ViewSpan(0, 2)).arrays
    assert list(layout.arrays) == ["logits", "pixels"]
    store = write_store(tmp_path / "a.kd", make_case(ROWS, sequence=8, packing="residuals"))
    assert store.identity.dataset.sequence == 8
    assert inspect_files(str(tmp_path / "a.kd")).whole
    assert not (tmp_path / "a.kd/views-00000-00002/canary").exists()
    with pytest.raises(MissingBlockError, match=r"views-00000-00002 holds texts, which have no canary"):
        store.segments[0].canary(0)
    assert len(store.read(1, np.arange(ROWS)).logits) == ROWS


def test_an_order_permutes_whole_sequences(tmp_path: Path) -> None:
    order, _ = make_order(ROWS, "shuffled", 5, sequence=8)
    assert sorted(order.tolist()) == list(range(ROWS))
    assert (order % 8 == np.arange(ROWS) % 8).all()
    assert (order.reshape(-1, 8) // 8 == order[::8, None] // 8).all()
    assert order.tolist() != list(range(ROWS))
    assert make_order(ROWS, "shuffled", 5)[0].tolist() == make_order(ROWS, "shuffled", 5, sequence=1)[0].tolist()
    case = make_case(ROWS, sequence=8)
    torn = np.concatenate([case.order[:20], case.order[21:], case.order[20:21]])
    with pytest.raises(InvalidInputError, match=r"order tears a sequence of 8 tokens at position 20"):
        Store.create(tmp_path / "a.kd", case.identity, order=torn, labels=case.labels, provenance=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", ["a token elsewhere", "sequences that begin inside others"])
def test_a_torn_order_is_damage(tmp_path: Path, change: str) -> None:
    case = make_case(ROWS, sequence=8)
    create_store(tmp_path / "a.kd", case)
    order = np.roll(np.arange(ROWS), 4) if change.startswith("seq") else case.order.copy()
    if change.startswith("a token"):
        order[[100, 101]] = order[[101, 100]]
    order = order.astype("u4")
    for key, data in encode_plain(order_spec(ROWS), order).items():
        (tmp_path / "a.kd" / key).write_bytes(data)
    path = tmp_path / "a.kd/kdcache/manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["identity"]["order"]["sha256"] = values_digest(order)
    path.write_text(json.dumps(manifest))
    position = 0 if change.startswith("seq") else 100
    with pytest.raises(DamagedError, match=rf"order: position {position} is not the next token of its sequence of 8"):
        _ = Store.open(tmp_path / "a.kd").order


@pytest.mark.parametrize("value", [0, 3, -8, 16384, 128, "x", None, [8]])
def test_a_manifest_with_another_value_is_refused_by_name(tmp_path: Path, value: Any) -> None:
    create_store(tmp_path / "a.kd", make_case(ROWS, sequence=8))
    path = tmp_path / "a.kd/kdcache/manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["identity"]["dataset"]["sequence"] = value
    path.write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match=r"identity\.dataset"):
        Store.open(tmp_path / "a.kd")


def test_the_fingerprint_of_docs_format() -> None:
    ids = np.array([5, 300, 70000, -1, 0, 1, 2, 3])
    data = bytes.fromhex("69 6e 74 33 32 5b 38 5d 05 00 00 00 2c 01 00 00 70 11 01 00 02 00 00 00 00 00 00 00")
    assert data == b"int32[8]" + struct.pack("<3i", 5, 300, 70000) + struct.pack("<q", 2)
    assert xxhash.xxh3_64_intdigest(data) == 0xFD4052A9C710699C
    assert token_fingerprints(ids).tolist() == [0xE8, 0x72, 0x9C, 0xD8, 0x57, 0xE6, 0x4A, 0xBE]


def test_a_token_s_fingerprint_covers_all_before_it_and_nothing_behind() -> None:
    ids = np.arange(8)
    whole = token_fingerprints(ids).tolist()
    for token in range(8):
        other = ids.copy()
        other[token] = 99
        changed = np.array(token_fingerprints(other).tolist()) != whole
        assert not changed[:token].any()
        assert changed[token]
    assert token_fingerprints(ids[:4]).tolist() != whole[:4]  # the length is in the header
    with pytest.raises(InvalidInputError, match=r"token ids 0 to 2147483648 were given; they are i32"):
        token_fingerprints(np.array([0, 2**31]))
