"""recode: a store in a narrower encoding is what extract would have written, up to what is stated."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import log_softmax

from kdcache.labels import topk
from kdcache.labels.quantising import decode_tail, last_steps, unpack
from kdcache.labels.reduction import SKETCH_TEMPERATURES, tail_sums
from kdcache.labels.topk import TopKEncoding
from kdcache.store import segment_layout
from kdcache.store.inspection import describe_store
from kdcache.store.manifest import Provenance
from kdcache.store.origins import recoded_from
from kdcache.store.store import Store
from kdcache.whole_store.recoding import Recoding, SegmentSums
from tests.kits.recode import recoded
from tests.kits.stores import Case, make_case, real_case, write_store

Array = npt.NDArray[Any]
STEP = 1 / 128


def tails(store: Store, view: int) -> Array:
    """[N, 3] f32, unpacked."""
    arrays = store.load(view, np.arange(store.rows)).arrays
    tail, encoding = arrays["tail"], store.identity.encoding
    if encoding.packing == "residuals":
        tail = unpack(
            tail,
            last_steps(arrays.get("gaps"), encoding.quantisation),
            store.identity.space.visible - store.identity.kept,
        )
    return decode_tail(tail)


def require_as_extracted(found: Store, direct: Store) -> None:
    """Equal identities and arrays, but for the tail, which is within the bound that `recoding` states."""
    assert found.identity == direct.identity
    half_gap = 0.5 / {"default": 16, "high": 64}[direct.identity.encoding.quantisation]
    for view in direct.every_view:
        own, other = (store.load(view, np.arange(store.rows)).arrays for store in (found, direct))
        for name in own.keys() - {"tail"}:
            np.testing.assert_array_equal(own[name], other[name], err_msg=name)
        tail, wanted = tails(found, view), tails(direct, view)
        np.testing.assert_array_equal(np.isfinite(tail), np.isfinite(wanted))
        for place, temperature in enumerate(SKETCH_TEMPERATURES):
            off = np.abs(np.where(np.isfinite(wanted), tail - wanted, 0.0))[:, place]
            assert off.max() <= half_gap / temperature + STEP + 1e-6
        np.testing.assert_array_equal(found.segments[0].canary(view), direct.segments[0].canary(view))


@pytest.mark.parametrize("k", [1, 5, 12])
@pytest.mark.parametrize(
    ("mix", "quantisation", "packing", "masked"),
    [
        ("none", "default", "residuals", ()),
        ("mixup", "default", "plain", (3, 17)),
        ("cutmix", "high", "residuals", ()),
    ],
)
def test_a_prefix_is_what_extract_would_have_written(
    tmp_path: Path, k: int, mix: str, quantisation: str, packing: str, masked: tuple[int, ...]
) -> None:
    made: dict[str, Any] = {"mix": mix, "quantisation": quantisation, "packing": packing, "masked": masked}
    write_store(tmp_path / "20.kd", make_case(200, k=20, **made))
    direct = write_store(tmp_path / "k.kd", make_case(200, k=k, **made))
    done, found = recoded(tmp_path / "20.kd", tmp_path / "out.kd", top_k=k)
    require_as_extracted(found, direct)
    assert (done.rows, done.blocks, done.present, done.clamped) == (400, 4, 0, 0)
    assert done.bytes < done.bytes_before
    assert found.content_id == done.content_id


def kl(log_p: Array, log_q: Array) -> Array:
    return np.asarray((np.exp(log_p) * (log_p - log_q)).sum(axis=-1))


def test_on_real_logits_the_tail_is_as_good_as_extracted(tmp_path: Path, real_logits: Array) -> None:
    """An ImageNet teacher: KL to its own answers, of a top 20 recoded to 10 and of a top 10 that extract wrote."""
    write_store(tmp_path / "20.kd", real_case(real_logits, 20))
    direct = write_store(tmp_path / "10.kd", real_case(real_logits, 10))
    _, found = recoded(tmp_path / "20.kd", tmp_path / "out.kd", top_k=10)
    require_as_extracted(found, direct)
    truth = log_softmax(real_logits.reshape(2, -1, 1000).astype("f8")[0], axis=-1)
    rows = np.arange(found.rows)
    lost = [kl(truth, store.read(0, rows).log_dense(1.0).astype("f8")).mean() for store in (found, direct)]
    assert abs(lost[0] - lost[1]) < 2e-5
    between = kl(direct.read(0, rows).log_dense(1.0).astype("f8"), found.read(0, rows).log_dense(1.0).astype("f8"))
    assert between.mean() < 2e-5
    assert between.max() < 3e-4


def test_all_logits_become_a_top_k(tmp_path: Path, real_logits: Array) -> None:
    """Through f16: classes but for ties, gaps and tails to a step, labels to one."""
    write_store(tmp_path / "full.kd", real_case(real_logits, None))
    direct = write_store(tmp_path / "10.kd", real_case(real_logits, 10))
    _, found = recoded(tmp_path / "full.kd", tmp_path / "out.kd", top_k=10, packing="plain")
    assert found.identity == direct.identity
    for view in (0, 1):
        own, other = (store.load(view, np.arange(store.rows)).arrays for store in (found, direct))
        assert (own["classes"] != other["classes"]).mean() < 0.02  # f16 makes near logits equal
        assert np.abs(own["gaps"].astype(int).sum(axis=1) - other["gaps"].astype(int).sum(axis=1)).max() <= 1
        assert np.abs(own["label"].astype(int) - other["label"].astype(int)).max() <= 1
        assert np.abs(tails(found, view) - tails(direct, view)).max() <= 2 * STEP
        np.testing.assert_array_equal(own["pixels"], other["pixels"])


def test_full_under_mixing_keeps_both_labels(tmp_path: Path) -> None:
    write_store(tmp_path / "full.kd", make_case(200, k=None, mix="mixup"))
    direct = write_store(tmp_path / "5.kd", make_case(200, k=5, mix="mixup"))
    _, found = recoded(tmp_path / "full.kd", tmp_path / "out.kd", top_k=5, packing="plain")
    own, other = (store.load(1, np.arange(200)).arrays["label"].astype(int) for store in (found, direct))
    assert own.shape == (200, 2)
    np.testing.assert_array_equal(own == 65535, other == 65535)
    assert np.abs(own - other).max() <= 1


def test_packing_loses_nothing_and_coarser_steps_a_known_part(tmp_path: Path) -> None:
    case = make_case(200, k=6, quantisation="high", features=8)
    source = write_store(tmp_path / "a.kd", case)
    _, packed = recoded(tmp_path / "a.kd", tmp_path / "b.kd", packing="residuals")
    _, back = recoded(tmp_path / "b.kd", tmp_path / "c.kd", packing="plain")
    for name, values in source.load(1, np.arange(200), features=True).arrays.items():
        np.testing.assert_array_equal(values, back.load(1, np.arange(200), features=True).arrays[name])
    assert packed.load(1, np.arange(200)).arrays["gaps"].shape == (200, 5)
    _, coarse = recoded(tmp_path / "a.kd", tmp_path / "d.kd", quantisation="default", drop=("features",))
    assert (coarse.identity.encoding.quantisation, coarse.identity.encoding.features) == ("default", 0)
    off = np.abs(coarse.read(0, np.arange(200)).logits - source.read(0, np.arange(200)).logits)
    assert 0 < off.max() <= 1 / 32


def test_clamped_rows_are_counted_no_lower_than_they_are(tmp_path: Path) -> None:
    """Gaps of 16 nats and more do not fit u8; rows that the cut no longer reaches are not clamped any more."""
    case = make_case(128, k=4, quantisation="high")
    case.logits[:, :3, 0] = case.logits.max() + 40  # the first gap
    write_store(tmp_path / "a.kd", case)
    done, _ = recoded(tmp_path / "a.kd", tmp_path / "b.kd", quantisation="default")
    assert done.clamped == 6
    assert recoded(tmp_path / "b.kd", tmp_path / "c.kd", top_k=3)[0].clamped == 6
    assert recoded(tmp_path / "b.kd", tmp_path / "d.kd", top_k=1)[0].clamped == 0


@pytest.mark.parametrize("wide", [False, True], ids=["larger blocks", "smaller blocks"])
def test_blocks_of_other_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wide: bool) -> None:
    """Blocks follow from the size of a row, so one of the output may cover several of the source, or a part of one."""
    monkeypatch.setattr(segment_layout, "BLOCKS_WANTED", 2)
    monkeypatch.setattr(segment_layout, "SHARD_BYTES", 64 * 60 * 2 * (2 if wide else 1))
    if wide:  # as if there were more than 65,536 classes
        monkeypatch.setattr(topk, "class_dtype", lambda classes: "uint32")
    k = 28 if wide else 5
    full = write_store(tmp_path / "full.kd", make_case(600, k=None, features=2))
    direct = write_store(tmp_path / "k.kd", make_case(600, k=k, features=2))
    _, found = recoded(tmp_path / "full.kd", tmp_path / "out.kd", top_k=k, packing="plain")
    blocks = [store.segments[0].layout.block for store in (full, found)]
    assert blocks == ([128, 64] if wide else [64, 256])
    for view in (0, 1):
        own, other = (store.load(view, np.arange(600), features=True).arrays for store in (found, direct))
        np.testing.assert_array_equal(own["pixels"], other["pixels"])
        np.testing.assert_array_equal(own["features"], other["features"])
        assert np.abs(own["label"].astype(int) - other["label"].astype(int)).max() <= 1
    if wide:
        counts = [commit.counts for commit in found.segments[0].commits().values()]
        labels = np.concatenate([direct.load(view, np.arange(600)).arrays["label"] for view in (0, 1)])
        assert sum(each.labelled for each in counts) == (labels != 65535).sum()


def test_all_logits_stay_as_they_are_in_larger_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features are the widest array: without them blocks are larger."""
    monkeypatch.setattr(segment_layout, "BLOCKS_WANTED", 2)
    monkeypatch.setattr(segment_layout, "SHARD_BYTES", 64 * 64 * 2 * 2)
    source = write_store(tmp_path / "full.kd", make_case(600, 20, None, features=64))
    _, found = recoded(tmp_path / "full.kd", tmp_path / "out.kd", drop=("features",))
    assert found.segments[0].layout.block == 2 * source.segments[0].layout.block
    for view in source.every_view:
        rows, wanted = (store.load(view, np.arange(600)).arrays for store in (found, source))
        assert np.array_equal(rows["logits"].view(np.uint16), wanted["logits"].view(np.uint16))


def test_class_means_follow_the_new_top_k(tmp_path: Path) -> None:
    """Sums over rows outside the new top k, from those outside the old one and the logits that are known."""
    rng = np.random.RandomState(1)
    case = make_case(64, 40, 12, views=1)
    logits = case.logits[0] + rng.normal(0, 2, 40)
    kept = {}
    for k in (12, 5):
        classes = np.argsort(-logits, axis=1, kind="stable")[:, :k]
        sums = tail_sums(logits.astype("f8"), classes)
        kept[k] = sums[0] / np.maximum(sums[1], 1)
    source = write_store(tmp_path / "a.kd", Case(case.identity, case.order, case.labels, logits[None].astype("f4")))
    target = source.identity.model_copy(update={"encoding": TopKEncoding(k=5, class_means=True)})
    sums = SegmentSums(Recoding(source.identity, target), kept[12])
    sums.add(source.load(0, np.arange(64)), source.labels)
    assert np.abs(sums.values()["class_means"][0] - kept[5]).max() < 0.1
    assert np.abs(kept[12] - kept[5]).max() > 0.5  # so carrying them over would not do


def test_provenance_says_what_it_was_recoded_from(tmp_path: Path) -> None:
    source = write_store(tmp_path / "20.kd", make_case(200, k=20))
    source.write_card(source.card.model_copy(update={"license": "CC0-1.0"}))
    _, middle = recoded(tmp_path / "20.kd", tmp_path / "10.kd", top_k=10)
    _, last = recoded(tmp_path / "10.kd", tmp_path / "5.kd", top_k=5)
    told = recoded_from(last.manifest.provenance)
    assert [each.content_id for each in told] == [middle.content_id, source.content_id]
    assert [each.encoding.k for each in told] == [10, 20]
    assert describe_store(last)["recoded_from"][0].startswith(f"{str(middle.content_id)[:16]} (top 10")
    assert last.card.license == "CC0-1.0"
    commit = last.segments[0].commit_of(2)
    assert commit.provenance.device == "test"
    extra = commit.provenance.model_extra or {}
    assert middle.seal_record is not None
    assert extra["recoded"]["segment"] == middle.seal_record.segments[0].digest


def test_provenance_of_another_form_is_reported_by_nobody(tmp_path: Path) -> None:
    for odd in ("x", [1], [{"content_id": "a"}], {"content_id": "a"}, [{"content_id": "0" * 64, "encoding": {}}]):
        assert recoded_from(Provenance.model_validate({"recoded": odd})) == ()
