"""Golden stores of the keys that joined format 1 last, by the table alone: block rule, class map, answers, contents."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

from kdcache.errors import FormatError
from kdcache.store.store import Store
from tests.golden.make import (
    CLASSES,
    HERE,
    MASKED,
    ROWS,
    SUBCLASSES,
    K,
    golden_contents,
    golden_labels,
    golden_logits,
    golden_order,
    golden_pixels,
)
from tests.store.test_golden import EVERYTHING, MAPPED, PACKED, PROBS, RULE_2, TOPK, exact, raw
from tests.store.test_golden_rows import commits_of

CONTENTS, SUBCLASSED, IDS = (HERE / f"format1-{name}.kd" for name in ("contents", "subclasses", "ids"))


def identity_of(root: Path) -> Any:
    return json.loads((root / "kdcache/manifest.json").read_bytes())["identity"]


def test_a_store_of_block_rule_2_has_one_block_of_128() -> None:
    """70 rounded up to a power of two, where 2,048 rows of two views would be 1,024 positions; rule 1 has 64."""
    segment = "views-00000-00002"
    for root, rule, block in ((RULE_2, 2, 128), (PACKED, None, 64)):
        assert identity_of(root)["encoding"].get("block_rule") == rule
        assert json.loads((root / f"kdcache/{segment}/segment.json").read_bytes())["block"] == block
        assert raw_chunk(root, f"{segment}/classes") == [2, block, K]
        commits = sorted(path.name for path in (root / f"kdcache/{segment}/commits/000").iterdir())
        assert commits == [f"{number:06}.json" for number in range(-(-ROWS // block))]
    for name in ("classes", "gaps", "tail", "label", "pixels"):
        np.testing.assert_array_equal(raw(RULE_2, f"{segment}/{name}"), raw(PACKED, f"{segment}/{name}"))
    for view in (0, 1):
        soft, same = (Store.open(root).read(view, EVERYTHING) for root in (RULE_2, PACKED))
        np.testing.assert_array_equal(soft.log_dense(2.0), same.log_dense(2.0))


def raw_chunk(root: Path, path: str) -> list[int]:
    """The shape of a shard."""
    found: list[int] = json.loads((root / path / "zarr.json").read_bytes())["chunk_grid"]["configuration"][
        "chunk_shape"
    ]
    return found


def test_a_store_with_a_class_map_holds_the_classes_of_the_data() -> None:
    """Soft labels are those of the store without the map: the map says where the numbers came from."""
    teacher = identity_of(MAPPED)["teacher"]
    assert (teacher["class_map"], teacher["classes"]) == ([-1, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, -1], CLASSES)
    assert teacher["masked_classes"] == sorted(set(range(CLASSES)) - set(teacher["class_map"])) == [MASKED]
    assert "answers" not in teacher
    for name in ("classes", "gaps", "tail", "label", "pixels"):
        np.testing.assert_array_equal(
            raw(MAPPED, f"views-00000-00002/{name}"), raw(TOPK, f"views-00000-00002/{name}"), err_msg=name
        )
    store = Store.open(MAPPED)
    assert store.identity.teacher.class_map == tuple(teacher["class_map"])
    assert store.read(1, EVERYTHING).num_classes == CLASSES


def test_a_store_of_probabilities_holds_their_logarithm() -> None:
    """No visible class lies further below the top than log 1e-12."""
    assert identity_of(PROBS)["teacher"]["answers"] == "probs"
    (stored,) = raw(PROBS, "views-00000-00001/logits")
    wanted = np.maximum(exact(0), -27.625)
    wanted[:, MASKED] = -np.inf
    np.testing.assert_array_equal(stored, wanted.astype("f2"))
    assert stored[5].astype("f8")[:MASKED].min() == -27.625 > np.log(1e-12)
    store = Store.open(PROBS)
    assert store.identity.teacher.answers == "probs"
    np.testing.assert_array_equal(store.read(0, EVERYTHING).all_logits(), stored.astype("f4"))


def test_a_store_of_subclasses_holds_all_of_them_and_labels_of_their_classes() -> None:
    """12 logits a row; class c has the entries 3 c to 3 c + 2, whose exponentials are summed."""
    teacher = identity_of(SUBCLASSED)["teacher"]
    assert (teacher["subclasses"], teacher["classes"], teacher["masked_classes"]) == (SUBCLASSES, CLASSES, [])
    logits = golden_logits(0, 2).astype("f8")
    logits -= logits.max(axis=2, keepdims=True)
    np.testing.assert_array_equal(raw(SUBCLASSED, "views-00000-00002/logits"), logits.astype("f2"))
    labels = np.where(golden_labels() < 0, -1, golden_labels() % 4)[golden_order()]
    np.testing.assert_array_equal(raw(SUBCLASSED, "labels"), labels)
    store = Store.open(SUBCLASSED)
    for view in (0, 1):
        sums = np.stack([np.exp(logits[view])[:, 3 * c : 3 * c + 3].sum(axis=1) for c in range(4)], axis=1)
        p = sums / sums.sum(axis=1, keepdims=True)
        soft = store.read(view, EVERYTHING)
        assert (soft.num_classes, soft.by_class().num_classes) == (CLASSES, 4)
        np.testing.assert_allclose(soft.by_class().dense(1.0), p, rtol=1e-5)
        at_label = np.log(p[EVERYTHING, labels])
        for rows in (soft, soft.by_class()):
            found = np.asarray(rows.label_log_prob(1.0))
            np.testing.assert_allclose(found[labels >= 0], at_label[labels >= 0], rtol=1e-5, atol=1e-6)
            assert np.isnan(found[labels < 0]).all()


def test_a_store_of_contents_holds_one_fingerprint_a_sample_and_segment() -> None:
    """[1, N] u32 whatever the number of views, in shards of one chunk; rows are those of the store without it."""
    store = Store.open(CONTENTS)
    assert store.content_id == "69fe7602abbf1b7ae6b4cbf49610122c3a75f110bbfaac069df49370dafdfb40"
    assert identity_of(CONTENTS)["encoding"] == {
        "contents": "bytes", "features": 0, "head": 0, "k": K, "name": "topk", "quantisation": "default",
    }  # fmt: skip
    for segment, view in (("views-00000-00002", 0), ("views-00002-00003", 2)):
        stored = raw(CONTENTS, f"{segment}/contents")
        assert (str(stored.dtype), stored.shape, raw_chunk(CONTENTS, f"{segment}/contents")) == (
            "uint32", (1, ROWS), [1, 64],
        )  # fmt: skip
        np.testing.assert_array_equal(stored[0], golden_contents())
        read = store.segment_of(view).read(view, EVERYTHING, ["contents"]).arrays["contents"]
        np.testing.assert_array_equal(read, golden_contents())
        record = json.loads((CONTENTS / f"kdcache/{segment}/commits/000/000001.json").read_bytes())
        assert "contents" in record["shards"]
        np.testing.assert_array_equal(raw(CONTENTS, f"{segment}/pixels")[0], golden_pixels(view, view + 1)[0])


def test_commits_of_a_store_with_ids_hold_the_sums_of_the_table() -> None:
    """Position p, with h(p) = xxh3-64 modulo 2^31 - 1: sum h(p), and sum (p + 1) h(p); other commits lack the key."""
    store = Store.open(IDS)
    assert store.content_id == "451be5714cead7934b3c943a456cd172e8e57361b45c11d87d8487485961d456"
    prime, order = 2**31 - 1, raw(IDS, "order").tolist()
    hashes = [xxhash.xxh3_64_intdigest(f"sample {index}".encode()) % prime for index in order]
    for block, positions in ((0, range(64)), (1, range(64, ROWS))):
        record = json.loads((IDS / f"kdcache/views-00000-00001/commits/000/{block:06}.json").read_bytes())
        sums = sum(hashes[p] for p in positions), sum((p + 1) * hashes[p] for p in positions)
        assert record["ids"] == [value % prime for value in sums]
        assert store.segments[0].commit_of(block).ids == tuple(record["ids"])
    assert all("ids" not in record for record in commits_of(HERE / "format1-struck.kd"))


@pytest.mark.parametrize(
    ("root", "key", "value"),
    [
        (CONTENTS, "encoding.contents", "names"),
        (CONTENTS, "encoding.contents", 1),
        (RULE_2, "encoding.block_rule", 3),
        (RULE_2, "encoding.block_rule", "2"),
        (MAPPED, "teacher.class_map", [-1, 10]),
        (MAPPED, "teacher.class_map", "all"),
        (PROBS, "teacher.answers", "log_probs"),
        (PROBS, "teacher.answers", None),
        (SUBCLASSED, "teacher.subclasses", 0),
        (SUBCLASSED, "teacher.subclasses", 5),
        (SUBCLASSED, "teacher.subclasses", 12),
        (SUBCLASSED, "teacher.subclasses", "3"),
        (SUBCLASSED, "teacher.masked_classes", [1]),
    ],
)
def test_a_value_that_is_not_known_is_refused_by_its_key(tmp_path: Path, root: Path, key: str, value: Any) -> None:
    shutil.copytree(root, tmp_path / "new.kd")
    path = tmp_path / "new.kd/kdcache/manifest.json"
    manifest, (family, name) = json.loads(path.read_bytes()), key.split(".")
    assert name in manifest["identity"][family]
    manifest["identity"][family][name] = value
    path.write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match=rf"manifest.json: identity\.{family}.*({name}|class map|subclasses)"):
        Store.open(tmp_path / "new.kd")
