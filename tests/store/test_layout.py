"""layout: names, dtypes, shapes, block sizes and Zarr metadata of format 1, as the specification words them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcache.base.arrays import WIDTH
from kdcache.base.view_span import ViewSpan
from kdcache.labels.encodings import encoding_of
from kdcache.labels.quantising import class_dtype
from kdcache.store.array_spec import ArraySpec, plain_array
from kdcache.store.layout import labels_spec, order_spec, seal_key, segment_name
from kdcache.store.manifest import Identity
from kdcache.store.segment_layout import BLOCK_MIN, block_size, segment_layout
from tests.kits.stores import make_identity

FEW = np.arange(4)


def identity_of(rows: int, classes: int, k: int | None, **encoding: Any) -> Identity:
    """An identity of any size without its arrays."""
    mix = encoding.pop("mix", "none")
    chosen = encoding_of({"name": "full" if k is None else "topk", "k": k, **encoding})
    small = make_identity(FEW, FEW, classes=classes, encoding=chosen, mix=mix)
    return small.model_copy(update={"dataset": small.dataset.model_copy(update={"rows": rows})})


def arrays_of(identity: Identity, start: int = 0, stop: int = 10) -> dict[str, tuple[str, tuple[int, ...]]]:
    layout = segment_layout(identity, ViewSpan(start, stop))
    return {name: (spec.dtype, spec.shape) for name, spec in layout.arrays.items()}


def test_topk_arrays() -> None:
    assert arrays_of(identity_of(50_000, 1000, 20)) == {
        "classes": ("uint16", (10, 50_000, 20)),
        "gaps": ("uint8", (10, 50_000, 19)),
        "tail": ("int16", (10, 3, 50_000)),
        "label": ("uint16", (10, 50_000)),
        "pixels": ("uint8", (10, 50_000)),
        "canary": ("uint8", (10, 64, 3, 8, 8)),
    }


def test_full_arrays_with_features() -> None:
    assert arrays_of(identity_of(50_000, 10, None, features=512)) == {
        "logits": ("float16", (10, 50_000, 10)),
        "features": ("float16", (10, 50_000, 512)),
        "pixels": ("uint8", (10, 50_000)),
        "canary": ("uint8", (10, 64, 3, 8, 8)),
    }


def test_variants_of_topk_arrays() -> None:
    assert "gaps" not in arrays_of(identity_of(5000, 1000, 1))
    assert arrays_of(identity_of(5000, 1000, 5, quantisation="high"))["gaps"] == ("uint16", (10, 5000, 4))
    packed = identity_of(5000, 1000, 5, packing="residuals")
    assert arrays_of(packed)["gaps"] == ("uint8", (10, 4, 5000))
    assert arrays_of(packed) | {"gaps": 0} == arrays_of(identity_of(5000, 1000, 5)) | {"gaps": 0}
    assert "gaps" not in arrays_of(identity_of(5000, 1000, 1, packing="residuals"))
    assert arrays_of(identity_of(5000, 1000, 5, mix="mixup"))["label"] == ("uint16", (10, 5000, 2))
    assert arrays_of(identity_of(5000, 65_537, 5))["classes"] == ("uint32", (10, 5000, 5))
    assert arrays_of(identity_of(5, 1000, 5))["canary"] == ("uint8", (10, 5, 3, 8, 8))


def test_the_ticket_comes_first() -> None:
    for k, ticket in ((5, "classes"), (None, "logits")):
        layout = segment_layout(identity_of(5000, 100, k), ViewSpan(0, 1))
        assert next(iter(layout.arrays_of(0))) == next(iter(layout.arrays_of(7))) == ticket
        assert "canary" in layout.arrays_of(0)
        assert "canary" not in layout.arrays_of(7)


def test_names_and_keys() -> None:
    layout = segment_layout(identity_of(5000, 100, 5, mix="mixup"), ViewSpan(3, 12))
    assert layout.name == segment_name(ViewSpan(3, 12)) == "views-00003-00012"
    assert layout.arrays["classes"].key(7) == "views-00003-00012/classes/c/0/7/0"
    assert layout.arrays["tail"].key(7) == "views-00003-00012/tail/c/0/0/7"
    assert layout.arrays["label"].key(7) == "views-00003-00012/label/c/0/7/0"
    assert layout.arrays["pixels"].key(7) == "views-00003-00012/pixels/c/0/7"
    assert layout.arrays["gaps"].key(7) == "views-00003-00012/gaps/c/0/7/0"
    packed = segment_layout(identity_of(5000, 100, 5, packing="residuals"), ViewSpan(3, 12)).arrays["gaps"]
    assert (packed.key(7), packed.shard, packed.chunk) == (
        "views-00003-00012/gaps/c/0/0/7",
        (9, 4, layout.block),
        (1, 4, layout.block),
    )
    for quantisation, frames in (("default", ("noshuffle", 8192)), ("high", ("shuffle", 16384))):
        packed = segment_layout(
            identity_of(5000, 100, 5, packing="residuals", quantisation=quantisation), ViewSpan(0, 1)
        )
        codec = packed.arrays["gaps"].metadata()["codecs"][0]["configuration"]["codecs"][1]["configuration"]
        assert (codec["shuffle"], codec["blocksize"]) == frames
    assert layout.commit_key(1234) == "kdcache/views-00003-00012/commits/001/001234.json"
    assert layout.commits_file("ab" * 32) == f"kdcache/views-00003-00012/commits-{'ab' * 16}.jsonl"
    assert layout.record == "kdcache/views-00003-00012/segment.json"
    assert seal_key("cd" * 32) == f"kdcache/seals/{'cd' * 16}.json"


@pytest.mark.parametrize(
    ("rows", "classes", "k", "views", "block"),
    [
        (1_281_167, 1000, 20, 10, 8192),  # the most there is
        (50_000, 100, 10, 10, 512),  # 64 blocks or more: 50,000 / 64 = 781
        (10, 10, 2, 1, 64),  # never under a mixing group
        (1_281_167, 1000, None, 10, 2048),  # 64 MB a shard: 3,200 rows of 2,000 bytes
        (1_281_167, 21_841, None, 1, 512),  # 32 MB a chunk: 732 rows of 43,682 bytes
        (100_000_000, 100_000, None, 300, 64),  # one mixing group, whatever it weighs
    ],
)
def test_block_sizes(rows: int, classes: int, k: int | None, views: int, block: int) -> None:
    assert block_size(identity_of(rows, classes, k), ViewSpan(0, views)) == block


@pytest.mark.parametrize(
    ("rows", "classes", "k", "views", "block"),
    [
        (1_281_167, 1000, 20, 10, 8192),  # as by rule 1
        (2560, 1000, 20, 1, 2048),  # rule 1: 64
        (50_000, 100, 10, 1, 2048),  # 512
        (50_000, 100, 10, 10, 512),  # 256 would do, rule 1 has more
        (1797, 10, 3, 8, 256),
        (1797, 10, 3, 7, 512),  # 293 and more: 7 x 256 rows are too few
        (300, 10, 3, 2, 512),  # not above 300 rounded up
        (300, 10, 3, 300, 64),
        (10, 10, 2, 1, 64),
        (65, 10, 2, 1, 128),
        (4000, 500_000, None, 1, 64),  # 64 MB a shard: 64 rows of a megabyte
        (4000, 20_000, None, 1, 512),  # 32 MB a chunk: 800 rows of 40,000 bytes
        (4000, 20_000, None, 4, 256),  # 64 MB a shard: 400 rows of four views
    ],
)
def test_block_sizes_by_rule_2(rows: int, classes: int, k: int | None, views: int, block: int) -> None:
    assert block_size(identity_of(rows, classes, k, block_rule=2), ViewSpan(0, views)) == block


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 20_000_000),
    st.integers(2, 200_000),
    st.one_of(st.none(), st.integers(1, 100)),
    st.integers(1, 3000),
)
def test_rule_2_as_the_specification_words_it(rows: int, classes: int, k: int | None, views: int) -> None:
    k, powers = k if k is None else min(k, classes), [64 << n for n in range(8)]
    widest = 2 * classes if k is None else max(k * (2 if classes <= 65_536 else 4), 6)
    block, by_rule_1 = (
        block_size(identity_of(rows, classes, k, block_rule=rule), ViewSpan(0, views)) for rule in (2, 1)
    )
    fits = [b for b in powers if b == 64 or (views * b * widest <= 64_000_000 and b * widest <= 32_000_000)]
    least = next((b for b in powers if views * b >= 2048 or b >= rows), powers[-1])
    assert block == max(by_rule_1, min(least, fits[-1]))


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 20_000_000),
    st.integers(2, 200_000),
    st.one_of(st.none(), st.integers(1, 100)),
    st.integers(1, 300),
)
def test_blocks_tile_the_positions(rows: int, classes: int, k: int | None, views: int) -> None:
    identity = identity_of(rows, classes, k if k is None else min(k, classes))
    layout = segment_layout(identity, ViewSpan(0, views))
    block = layout.block
    assert block & (block - 1) == 0
    assert BLOCK_MIN <= block <= 8192
    assert layout.block_rows(0)[0] == 0
    assert layout.block_rows(layout.blocks - 1)[1] == rows
    assert (layout.blocks - 1) * block < rows <= layout.blocks * block
    widest = max(
        WIDTH[spec.dtype] * int(np.prod(spec.shape)) // (views * rows)
        for spec in layout.arrays.values()
        if spec.block_axis is not None
    )
    if block > BLOCK_MIN:
        assert views * block * widest <= 64_000_000
        assert block * widest <= 32_000_000
        assert layout.blocks >= 64
    for spec in layout.arrays.values():
        assert spec.shard is not None
        assert spec.chunk == (1, *spec.shard[1:])


@pytest.mark.parametrize(("classes", "dtype"), [(2, "uint16"), (65_536, "uint16"), (65_537, "uint32")])
def test_class_dtype(classes: int, dtype: str) -> None:
    assert class_dtype(classes) == dtype


def test_order_and_labels() -> None:
    assert (order_spec(10).dtype, order_spec(10).chunk) == ("uint32", (10,))
    assert order_spec(2**32 + 1).dtype == "uint64"
    assert (labels_spec(5_000_000).dtype, labels_spec(5_000_000).chunk) == ("int32", (2**20,))
    assert plain_array("head/weight", (1000, 512), "float32").chunk == (1000, 512)


def test_metadata_is_plain_zarr_3_with_core_codecs() -> None:
    spec = ArraySpec("views-00000-00002/tail", (2, 3, 200), "int16", (2, 3, 64), (1, 3, 64), 2)
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    blosc = {"typesize": 2, "cname": "zstd", "clevel": 5, "shuffle": "bitshuffle", "blocksize": 0}
    assert spec.metadata() == {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [2, 3, 200],
        "data_type": "int16",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 3, 64]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [1, 3, 64],
                    "codecs": [little, {"name": "blosc", "configuration": blosc}, {"name": "crc32c"}],
                    "index_codecs": [little, {"name": "crc32c"}],
                    "index_location": "end",
                },
            }
        ],
        "attributes": {},
        "storage_transformers": [],
    }
    assert spec.metadata_bytes().startswith(b'{"attributes":{},"chunk_grid":')
