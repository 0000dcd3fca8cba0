"""Bytes a row: peers give back what they got, what is counted is what a store writes, entropy and KL are right."""

import json
from pathlib import Path

import numpy as np
import pytest

from kdcache.base.canonical import canonical_json
from kdcache.labels.topk import TopKEncoding
from tests.benchmarks import report
from tests.benchmarks.harness import exact
from tests.benchmarks.peers import PEERS, Kept
from tests.benchmarks.rows import Rows
from tests.benchmarks.stored import (
    Stored,
    bytes_by_array,
    entropy,
    entropy_by_array,
    quantising_kl,
    reduced_rows,
    shared_ids,
    stored,
    write_store,
)

VIEWS, SAMPLES, CLASSES, K = 3, 64, 300, 7


@pytest.fixture(scope="module")
def rows() -> Rows:
    rng = np.random.RandomState(0)
    logits = rng.normal(0, 3, (VIEWS, SAMPLES, CLASSES)).astype(np.float32)
    return Rows(logits, rng.randint(0, CLASSES, SAMPLES), np.arange(SAMPLES))


@pytest.fixture(scope="module")
def kept(rows: Rows) -> Stored:
    return stored(rows, TopKEncoding(k=K, class_means=True))


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_gives_its_rows_back(name: str, rows: Rows, tmp_path: Path) -> None:
    reduced = reduced_rows(rows, K)
    dense = rows.logits.astype(np.float64)
    log_z = np.log(np.exp(dense).sum(axis=-1)) - dense.max(axis=-1)
    peer = PEERS[name](tmp_path)
    peer.write(Kept(reduced.classes, -reduced.distances, log_z.astype(np.float32), rows.logits))
    positions = np.array([41, 3, 3, 63, 0])
    for view in [0] if peer.values == "all logits" else range(VIEWS):
        ids, values = peer.batch(view, positions)
        best = np.argsort(-dense[view, positions], axis=-1)[:, :K]
        p = np.exp(dense[view, positions]) / np.exp(dense[view, positions]).sum(axis=-1, keepdims=True)
        centred = dense[view, positions] - dense[view, positions].max(axis=-1, keepdims=True)
        wanted = {"probabilities": p, "logits": centred, "all logits": dense[view, positions]}[peer.values]
        if peer.values != "all logits":
            np.testing.assert_array_equal(ids, best)
        np.testing.assert_allclose(values, np.take_along_axis(wanted, ids, axis=-1), rtol=2e-3, atol=2e-3)
    assert peer.bytes_on_disk == sum(len(path.read_bytes()) for path in tmp_path.iterdir())


def test_tinyvit_takes_what_it_publishes(rows: Rows, tmp_path: Path) -> None:
    reduced = reduced_rows(rows, 10)
    peer = PEERS["TinyViT"](tmp_path)
    peer.write(Kept(reduced.classes, -reduced.distances, np.zeros((VIEWS, SAMPLES), np.float32), rows.logits))
    assert peer.bytes_on_disk == 44 * VIEWS * SAMPLES


@pytest.mark.parametrize(
    ("values", "bits"),
    [(np.arange(8), 3.0), (np.zeros(9), 0.0), (np.array([0, 0, 1, 2]), 1.5), (np.repeat([5, 7], [1, 3]), 0.8112781245)],
)
def test_entropy_is_that_of_the_frequencies(values: np.ndarray, bits: float) -> None:
    assert entropy(values) == pytest.approx(bits, abs=1e-9)


def test_entropy_by_array_counts_every_symbol_of_a_row(kept: Stored) -> None:
    found = entropy_by_array(kept)
    assert found["classes"] == pytest.approx(K * entropy(kept.arrays["classes"]) / 8)
    assert found["tail"] == pytest.approx(sum(entropy(kept.arrays["tail"][:, part]) for part in range(3)) / 8)
    assert set(found) == {"classes", "gaps", "tail", "label", "pixels"}


def test_what_is_counted_is_what_a_store_writes(kept: Stored, tmp_path: Path) -> None:
    """64 samples are a block of a store of 64, and of the one 64 times as large that is counted."""
    counted, count = bytes_by_array(kept), VIEWS * SAMPLES
    store = write_store(kept, tmp_path / "s.kd")
    layout = store.segments[0].layout
    assert layout.blocks == 1
    files = {name: (tmp_path / "s.kd" / spec.key(0)).stat().st_size for name, spec in layout.arrays.items()}
    for name in layout.rowwise:
        assert counted[name] * count == pytest.approx(files[name])
    assert counted["once a segment"] * count * 64 == pytest.approx(files["canary"] + files["class_means"])
    commit = json.loads((tmp_path / "s.kd" / layout.commit_key(0)).read_bytes())
    for name in ("canary", "class_means"):  # only block 0 has them
        del commit["shards"][name]
    assert counted["commits"] * count == pytest.approx(2 * len(canonical_json(commit)), abs=4)  # digits of a count
    assert set(counted) == {*layout.rowwise, "once a segment", "commits"}


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_kl_by_quantising_is_that_of_what_a_store_gives_back(
    kept: Stored, rows: Rows, tmp_path: Path, temperature: float
) -> None:
    store, total = write_store(kept, tmp_path / "s.kd"), 0.0
    for view in range(VIEWS):
        soft = store.read(view, np.arange(SAMPLES))
        z = rows.logits[view].astype(np.float64) / temperature
        p = np.exp(z - z.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        head = np.take_along_axis(p, soft.classes.astype(np.int64), axis=-1)
        left = np.concatenate([head, 1 - head.sum(axis=-1, keepdims=True)], axis=-1)
        right = np.concatenate([soft.log_probs(temperature), soft.tail_log_prob(temperature)[:, None]], axis=-1)
        total += (left * (np.log(left) - right)).sum(axis=-1).mean() / VIEWS
    assert quantising_kl(kept, temperature) == pytest.approx(total, rel=0.02, abs=1e-7)
    assert 1e-6 < total < 5e-4


def test_shared_ids_counts_what_two_views_have_in_common(kept: Stored) -> None:
    one, other = (set(map(int, kept.arrays["classes"][view, 9])) for view in (0, 1))
    single = Stored(kept.rows, kept.encoding, {"classes": kept.arrays["classes"][:2, 9:10]}, None)
    assert shared_ids(single) == len(one & other)


def test_the_folded_teacher_is_the_teacher() -> None:
    import torch

    from tests.kits.photographs import folded_teacher, imagenet_teacher

    images = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (2, 3, 96, 96)).astype(np.uint8))
    with torch.inference_mode():
        wanted = imagenet_teacher()((images.float() - 127.0) / 128.0).numpy()
    np.testing.assert_allclose(folded_teacher()(images), wanted, atol=1e-4)


def test_the_page_shows_the_table_and_the_picture(tmp_path: Path) -> None:
    parts = {"classes": 12.5, "gaps": 5.0, "tail": 3.5, "label": 1.2, "pixels": 1.0, "commits": 0.2}
    table = {"title": "By array", "columns": ["array", "k 10"], "rows": [["classes", "12.50"]]}
    figures = [
        exact("bytes a row on disk", 23.4, "bytes/row", target=24, setting="k 10", arrays=parts, entropy=parts),
        exact("TinyViT: seek and read a sample", 44.0, "bytes/row", setting="k 10", peer="TinyViT", table=table),
    ]
    conditions = {"device": "a CPU", "versions": {}, "command": "make bench", "minutes": 1.0}
    report.write({"Bytes a row": figures}, {"Bytes a row": conditions}, tmp_path / "performance.md")
    tables = (tmp_path / "performance/sizes.md").read_text()
    assert "By array:\n\n| array | k 10 |\n|---|---|\n| classes | 12.50 |\n" in tables
    assert (tmp_path / "figures/bytes_a_row.png").stat().st_size > 5_000
