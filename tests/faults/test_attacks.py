"""Attacks by records: what a store says of itself is bounded, checked and named, and never runs anything."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.base.arrays import values_digest
from kdcache.base.canonical import canonical_json, sha256_hex
from kdcache.base.view_span import ViewSpan
from kdcache.store.layout import order_spec, segment_digest
from kdcache.store.manifest import parse_manifest
from kdcache.store.segment_layout import segment_layout
from kdcache.store.shards import encode_plain
from kdcache.store.store import Store
from tests.kits.attacks import (
    COMMIT,
    MEMORY,
    ROWS,
    SEGMENT,
    attacked,
    edit,
    good_store,
    in_child,
    read_digest,
    rewrite_segment,
    set_identity,
    swapped,
    whole_file,
)

MANIFEST = "kdcache/manifest.json"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return good_store(tmp_path_factory.mktemp("good") / "good.kd")


@pytest.fixture(scope="module")
def truth(good: Path) -> str:
    return read_digest(Store.open(good), everything=True)


def identity(field: str, value: Any) -> Callable[[Path], None]:
    return lambda store: set_identity(store, field, value)


def holes(key: str, size: int) -> Callable[[Path], None]:
    """A file that takes no space and has any size."""

    def make(store: Path) -> None:
        (store / key).parent.mkdir(parents=True, exist_ok=True)
        (store / key).touch()
        os.truncate(store / key, size)

    return make


def order_of(values: Any) -> Callable[[Path], None]:
    """An order that is not one, with every digest as it should be."""

    def make(store: Path) -> None:
        order = np.array(values, dtype="u4")
        for key, data in encode_plain(order_spec(ROWS), order).items():
            (store / key).write_bytes(data)
        set_identity(store, "order.sha256", values_digest(order))
        rewrite_segment(store)

    return make


def sealed(spans: list[tuple[int, int]], *, lines: bytes = b"") -> Callable[[Path], None]:
    """A seal whose digests all follow, over segments that were never written."""

    def make(store: Path) -> None:
        record = parse_manifest((store / MANIFEST).read_bytes(), "manifest").identity
        commits, digest = sha256_hex(lines), record.digest
        layouts = {span: segment_layout(record, ViewSpan(*span)) for span in spans}
        entries = [
            {"views": span, "commits": commits, "digest": segment_digest(layout, digest, commits)}
            for span, layout in layouts.items()
        ]
        fields = {"format": 1, "identity": digest, "order": record.order.sha256, "labels": "0" * 64, "head": None}
        data = canonical_json({**fields, "segments": entries})
        name = sha256_hex(data)
        whole_file(f"kdcache/seals/{name[:32]}.json", data)(store)
        whole_file("kdcache/seals/latest", name.encode() + b"\n")(store)
        for span in spans[:3]:
            whole_file(layouts[span].commits_file(commits), lines)(store)

    return make


def commit(field: str, value: Any) -> Callable[[Path], None]:
    return lambda store: edit(store / COMMIT, lambda record: {**record, field: value})


def many_values(store: Path) -> None:
    """2 bytes of text a value, 64 of memory."""
    edit(store / MANIFEST, lambda record: record["provenance"].update(more=[]))
    swapped(MANIFEST, b'"more": []', b'"more": [' + b"{}," * 5_000_000 + b"{}]")(store)


def deep_folders(store: Path) -> None:
    for _ in range(2):
        folder = store / f"kdcache/{SEGMENT}/commits/" / "/".join(["a"] * 500)
        folder.mkdir(parents=True, exist_ok=True)


STRIKES: dict[str, Any] = {
    "an empty list": [],
    "an answered row": [70, 80, 90],
    "half of them": [90],
    "another block's": [70, 90, 128],
    "-1": [-1, 70, 90],
    "10^30": [70, 90, 10**30],
    "text": ["70", "90"],
    "true": [True, 70, 90],
    "a row twice": [70, 70, 90],
    "in falling order": [90, 70],
    "no list": {"70": 90},
    "more than allowed": list(range(1001)),
    "millions": [70] * 10_000_000,
}
SEQUENCES = (0, -8, 3, 6, 16, 16384, 10**30, float("nan"), "many", [8])
DEEP = b"[" * 100_000 + b"]" * 100_000
RECORDS: dict[str, Callable[[Path], None]] = {
    "rows 10^12": identity("dataset.rows", 10**12),
    "rows 10^15": identity("dataset.rows", 10**15),
    "rows 10^30": identity("dataset.rows", 10**30),
    "rows 0": identity("dataset.rows", 0),
    "rows -1": identity("dataset.rows", -1),
    "rows NaN": identity("dataset.rows", float("nan")),
    "rows 2^31 forged throughout": lambda store: (set_identity(store, "dataset.rows", 2**31), rewrite_segment(store))[
        1
    ],
    "classes 2^62": identity("teacher.classes", 2**62),
    "classes 2^62, masked": lambda store: (
        set_identity(store, "teacher.classes", 2**62),
        set_identity(store, "teacher.masked_classes", [3, 1]),
    )[1],
    "block rule 2 over blocks of rule 1": lambda store: (
        set_identity(store, "encoding.block_rule", 2),
        rewrite_segment(store),
    )[0],
    "block rule 3": identity("encoding.block_rule", 3),
    "block rule true": identity("encoding.block_rule", True),
    "block rule 2^70": identity("encoding.block_rule", 2**70),
    "a class map to classes there are not": identity("teacher.class_map", [*range(29), 30]),
    "a class map to one class twice": identity("teacher.class_map", [*range(30), 0]),
    "a class map that leaves a class out": identity("teacher.class_map", [*range(29), -1]),
    "a class map of a million": identity("teacher.class_map", [-1] * 2**20),
    "a class map of texts": identity("teacher.class_map", ["../../outside"] * 30),
    "a class map to -2^70": identity("teacher.class_map", [-(2**70), *range(30)]),
    "answers in a code": identity("teacher.answers", "evil:run"),
    "k 2^40": identity("encoding.k", 2**40),
    "k and classes 2^22": lambda store: (
        set_identity(store, "encoding.k", 2**22),
        set_identity(store, "teacher.classes", 2**23),
    )[1],
    "features 2^40": identity("encoding.features", 2**40),
    "head 2^40": identity("encoding.head", 2**40),
    "alpha Infinity": identity("views.mix_alpha", float("inf")),
    "a float beyond f64": swapped(MANIFEST, b'"mix_alpha":1.0', b'"mix_alpha":1e999'),
    "an integer of 5,000 digits": swapped(MANIFEST, b'"rows":200', b'"rows":2' + b"0" * 5000),
    **{f"a sequence of {value}": identity("dataset.sequence", value) for value in SEQUENCES},
    "a sequence of 8 forged throughout": lambda store: (
        set_identity(store, "dataset.sequence", 8),
        rewrite_segment(store),
    )[1],
    "class names that are numbers": identity("dataset.class_names", [1] * 200_000),
    "nested 100,000 deep": swapped(MANIFEST, b'"arguments":{}', b'"arguments":{"a":' + DEEP + b"}"),
    "nested in a string that never ends": whole_file(MANIFEST, b'{"a":"' + b'\\"' * 500_000 + DEEP),
    "millions of empty objects": many_values,
    "a manifest of 1 TiB": holes(MANIFEST, 2**40),
    "a manifest of 60 MiB": whole_file(MANIFEST, b'{"identity":"' + b"x" * 60 * 2**20 + b'"}'),
    "a key twice": swapped(MANIFEST, b'"rows":200', b'"rows":200,"rows":100'),
    "half a surrogate pair": swapped(MANIFEST, b'"name":"made-up"', b'"name":"\\ud800"'),
    "half a surrogate pair in a setting": swapped(MANIFEST, b'"arguments":{}', b'"arguments":{"\\udfff":1}'),
    "UTF-16": lambda store: whole_file(MANIFEST, (store / MANIFEST).read_text().encode("utf-16"))(store),
    "not UTF-8": swapped(MANIFEST, b"made-up", b"made\xed\xa0\x80up"),
    "a list": whole_file(MANIFEST, b"[]"),
    "a newer format": identity("format", 2),
    "a format of 400 digits": identity("format", 10**400),
    "an unknown key": identity("hook", "evil:run"),
    "another segment's record": swapped(f"kdcache/{SEGMENT}/segment.json", b'"block":64', b'"block":65'),
    "a segment's record of 1 TiB": holes(f"kdcache/{SEGMENT}/segment.json", 2**40),
    "zarr.json of format 2": swapped(f"{SEGMENT}/classes/zarr.json", b'"zarr_format":3', b'"zarr_format":2'),
    "zarr.json with a pickle filter": swapped(
        f"{SEGMENT}/classes/zarr.json", b'"codecs":[', b'"codecs":[{"name":"numcodecs.pickle","configuration":{}},'
    ),
    "zarr.json with a huge shape": swapped(f"{SEGMENT}/classes/zarr.json", b'"shape":[2,200', b'"shape":[2,200000000'),
    "zarr.json with another codec": swapped(f"{SEGMENT}/classes/zarr.json", b'"blosc"', b'"gzip"'),
    "zarr.json nested deep": whole_file(f"{SEGMENT}/classes/zarr.json", b'{"a":' + DEEP + b"}"),
    "zarr.json of 1 TiB": holes("order/zarr.json", 2**40),
    "an order of zeros": order_of([0] * ROWS),
    "an order beyond the rows": order_of([*range(ROWS - 1), 2**32 - 1]),
    "a commit of another block": commit("block", 2),
    "a commit of block 2^63": commit("block", 2**63),
    "a commit that names a path": commit("shards", {"../../../outside": {"sha256": "0" * 64, "size": 1}}),
    "a commit of other rows": commit("rows", 10**9),
    "a commit of negative size": lambda store: edit(
        store / COMMIT, lambda record: record["shards"]["classes"].update(size=-1)
    ),
    **{f"a commit that strikes {name}": commit("struck", value) for name, value in STRIKES.items()},
    "a commit of 1 TiB": holes(COMMIT, 2**40),
    "a commit nested deep": whole_file(COMMIT, DEEP),
    "a commit of block 10^14": whole_file(f"kdcache/{SEGMENT}/commits/000/100000000000000.json", b"{}"),
    "folders 500 deep": deep_folders,
    "latest leads out": whole_file("kdcache/seals/latest", b"../../outside"),
    "latest of 1 TiB": holes("kdcache/seals/latest", 2**40),
    "a seal over views 0:100000": sealed([(0, 100_000)]),
    "a seal of 1,200 segments": sealed([(view, view + 1) for view in range(1200)]),
    "a seal of 10 MiB": lambda store: (
        sealed([(0, 2)])(store),
        os.truncate(next((store / "kdcache/seals").glob("*.json")), 10 * 2**20),
    )[1],
    "a seal of overlapping segments": sealed([(0, 2), (1, 3)]),
    "a seal of views -1:2": lambda store: sealed([(0, 2)])(store) or _reseal(store, [[-1, 2]]),
    "a seal of views 0:10^30": lambda store: sealed([(0, 2)])(store) or _reseal(store, [[0, 10**30]]),
    "commits of a seal: 60 MiB of lines": sealed([(0, 2)], lines=b"{}\n" * 20 * 2**20),
    "a card of 1 TiB": holes("kdcache/card.json", 2**40),
    "a card nested deep": whole_file("kdcache/card.json", b'{"notes":' + DEEP + b"}"),
}
HARMLESS: dict[str, Callable[[Path], None]] = {
    "a transform that names a module": lambda store: (
        set_identity(store, "views.transform", {"name": "evil:run", "arguments": {}, "text": "__import__('evil')"}),
        rewrite_segment(store),
    )[1],
    "names with control characters": lambda store: (
        set_identity(store, "dataset.class_names", ["\x1b[2J\x9b31m\u202e/etc/passwd\x07\u2066\x00"] * 30),
        rewrite_segment(store),
    )[1],
    "segments with odd names": lambda store: [
        (store / "kdcache" / name).mkdir()
        for name in ("views-00000-99999999999999999999", "views-..-..", "views-00000-٠٠٠٠٥", "views-5-1", "views-\n")
    ] and None,
    "a .zarray with a pickle filter beside zarr.json": whole_file(
        f"{SEGMENT}/classes/.zarray", b'{"zarr_format":2,"filters":[{"id":"pickle"}],"dtype":"|O"}'
    ),
}  # fmt: skip


def _reseal(store: Path, views: list[list[int]]) -> None:
    path = next((store / "kdcache/seals").glob("*.json"))
    edit(path, lambda seal: [each.update(views=views[0]) for each in seal["segments"]] and None)
    name = sha256_hex(path.read_bytes())
    path.rename(path.with_name(f"{name[:32]}.json"))
    (store / "kdcache/seals/latest").write_text(name)


@pytest.mark.parametrize("name", list(RECORDS))
def test_a_hostile_record_is_refused_by_name(good: Path, truth: str, tmp_path: Path, name: str) -> None:
    found = attacked(good, tmp_path, RECORDS[name])
    assert "verify" in found.refused, found.text
    assert any(str(tmp_path / "hostile.kd") in found.steps[step] for step in found.refused)
    assert found.steps["everything"] == truth or "everything" in found.refused, "other data were read in silence"


def test_marks_that_no_commit_strikes_are_never_read(good: Path, tmp_path: Path) -> None:
    """Verify decodes no ticket of a block without struck rows; whoever reads the block does."""

    def make(store: Path) -> None:
        edit(store / COMMIT, lambda record: record.pop("struck") and None)

    found = attacked(good, tmp_path, make)
    assert found.refused == {"everything"}, found.text
    assert "holds class id 30, allowed are 0 to 29" in found.steps["everything"]


@pytest.mark.parametrize("name", list(HARMLESS))
def test_what_is_only_text_stays_text(good: Path, tmp_path: Path, name: str) -> None:
    found = attacked(good, tmp_path, HARMLESS[name])
    assert "read" not in found.refused, found.text


def test_the_good_store_passes_and_the_limits_bite(good: Path, tmp_path: Path) -> None:
    found = attacked(good, tmp_path, lambda store: None)
    assert found.refused == set(), found.text
    assert in_child(_greedy) == "MemoryError"


def _greedy() -> str:
    from tests.kits.attacks import limit_memory

    limit_memory()
    try:
        return str(len(bytearray(MEMORY + 2**25)))  # more than what was free already
    except MemoryError:
        return "MemoryError"
