"""diff: what tells two stores apart, rows met by sample and view whatever the order, exit codes as of other diffs."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax

from kdcache.base.arrays import values_digest
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError
from kdcache.pipelines.extract.stage import extract
from kdcache.store.manifest import OrderIdentity
from kdcache.store.store import Store
from kdcache.whole_store import common_rows, row_comparison
from kdcache.whole_store.diff import diff_stores
from kdcache.whole_store.tally import Tally
from tests.cli.test_cli import Capture, answer, kdcache, refusal
from tests.kits import stages
from tests.kits.stages import Stage
from tests.kits.stores import Case, create_store, make_case, write_store, write_views
from tests.kits.web import serving

stage = stages.stage
ROWS = 300


def noisy(case: Case, noise: float = 0.3) -> Case:
    change = np.random.RandomState(4).normal(0, noise, case.logits.shape).astype("f4")
    return Case(case.identity, case.order, case.labels, case.logits + change)


def reordered(case: Case, kind: str = "shuffled") -> Case:
    """The same samples at other positions."""
    moved = np.random.RandomState(9).permutation(len(case.order))
    order = case.order[moved]
    identity = case.identity.model_copy(
        update={"order": OrderIdentity(kind=kind, sha256=values_digest(order.astype("u4")))}
    )
    return Case(identity, order, case.labels[moved], case.logits[:, moved])


def changed(case: Case, part: str, **update: Any) -> Case:
    identity = case.identity.model_copy(update={part: getattr(case.identity, part).model_copy(update=update)})
    return Case(identity, case.order, case.labels, case.logits)


def two(tmp_path: Path, a: Case, b: Case) -> tuple[Store, Store]:
    return write_store(tmp_path / "a.kd", a), write_store(tmp_path / "b.kd", b)


def kl(logits: Any, other: Any, temperature: float) -> Any:
    log_p, log_q = (log_softmax(np.asarray(each, dtype="f8") / temperature, axis=-1) for each in (logits, other))
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)


def test_a_copy_is_the_same_and_other_rows_are_named(tmp_path: Path) -> None:
    case = make_case(ROWS, k=None)
    a, b = two(tmp_path, case, noisy(case))
    shutil.copytree(tmp_path / "a.kd", tmp_path / "copy.kd")
    same = diff_stores(a, Store.open(tmp_path / "copy.kd"))
    assert (same.same, same.identity, same.content, same.note) == (True, (), (), "")
    assert same.rows is not None
    assert (same.rows.agreement, same.rows.kl_ab.max, same.rows.worst) == (1.0, 0.0, ())
    found = diff_stores(a, b, temperature=2.0, rows=0)
    assert not found.same
    assert found.content[0].field == "views-00000-00002"
    assert "blocks, the first is 0 (logits)" in found.content[0].a
    assert found.rows is not None
    exact = kl(a.read(0, np.arange(ROWS)).logits, b.read(0, np.arange(ROWS)).logits, 2.0)
    assert found.rows.exact
    assert found.rows.views[0].kl_ab.mean == pytest.approx(exact.mean(), rel=1e-6)
    assert found.rows.views[0].kl_ab.median == pytest.approx(np.median(exact), rel=0.01)
    assert found.rows.views[0].pixels == 1.0
    both = np.stack(
        [
            kl(x.read(v, range(ROWS)).logits, y.read(v, range(ROWS)).logits, 2.0)
            for v in (0, 1)
            for x, y in ((a, b), (b, a))
        ]
    )
    worst = found.rows.worst[0]
    assert max(worst.kl_ab or 0, worst.kl_ba or 0) == pytest.approx(both.max(), rel=1e-6)
    assert (worst.index, worst.position_a) == (int(case.order[worst.position_b]), worst.position_b)
    assert len(found.rows.worst) == row_comparison.WORST
    assert sum(found.rows.histogram_ab) == found.rows.rows == 2 * ROWS


@pytest.mark.parametrize("k", [None, 4])
def test_rows_meet_by_sample_whatever_the_order_and_the_encoding(
    tmp_path: Path, k: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pieces of a few rows and in blocks read one by one, as in one go."""
    monkeypatch.setattr(common_rows, "GROUP_BYTES", 2_000)
    monkeypatch.setattr(common_rows, "READ_BYTES", 3_000)
    monkeypatch.setattr(row_comparison, "PIECE", 900)
    a, b = two(tmp_path, make_case(ROWS), reordered(make_case(ROWS, k=k, quantisation="high")))
    found = diff_stores(a, b, rows=0)
    assert {each.field for each in found.identity} >= {"order.sha256", "encoding.quantisation"}
    assert found.rows is not None
    assert (found.rows.rows, found.rows.agreement) == (2 * ROWS, 1.0)
    assert found.rows.views[0].pixels is None
    assert found.rows.kl_ab.max is not None
    assert found.rows.kl_ab.max < 2e-3  # quantising alone
    assert found.rows.top_k == (5 if k is None else 4)
    for row in found.rows.worst:
        assert a.order[row.position_a] == b.order[row.position_b] == row.index


def test_a_sample_of_rows_and_of_views(tmp_path: Path) -> None:
    case = make_case(1000, views=3)
    for name, one in (("given", case), ("shuffled", reordered(case))):
        (tmp_path / name).mkdir()
        a, b = two(tmp_path / name, one, noisy(one))
        found = diff_stores(a, b, rows=100, views=ViewSpan(1, 3))
        assert found.rows is not None
        assert [(each.view, each.rows) for each in found.rows.views] == [(1, 100), (2, 100)]
    with pytest.raises(InvalidInputError, match=r"no view of 7:9 is in both stores: A has .0, 1, 2."):
        diff_stores(a, b, views=ViewSpan(7, 9))


def test_blocks_of_one_alone_are_told_and_not_read(tmp_path: Path) -> None:
    case = make_case(ROWS)
    for name, blocks in (("a.kd", (0, 1, 2)), ("b.kd", (1, 2, 3, 4))):
        write_views(create_store(tmp_path / name, case), 0, case.logits, blocks)
    write_views(Store.open_for_writing(tmp_path / "b.kd"), 2, case.logits)
    found = diff_stores(Store.open(tmp_path / "a.kd"), Store.open(tmp_path / "b.kd"), rows=0)
    assert [(each.field, each.a, each.b) for each in found.content] == [
        ("views-00000-00002 alone", "blocks 0", "blocks 3, 4"),
        ("views-00002-00004", "nothing", "5 of 5 blocks"),
    ]
    assert found.rows is not None
    assert (found.rows.rows, found.rows.agreement, found.rows.kl_ab.max) == (2 * 128, 1.0, 0.0)


def test_stores_without_a_row_in_common_say_so(tmp_path: Path) -> None:
    case = make_case(ROWS)
    for name, blocks in (("a.kd", (0, 1)), ("b.kd", (2, 3))):
        write_views(create_store(tmp_path / name, case), 0, case.logits, blocks)
    found = diff_stores(Store.open(tmp_path / "a.kd"), Store.open(tmp_path / "b.kd"))
    assert (found.rows, found.note) == (None, "no row is in both stores in the views that are: no row to compare")


def test_equal_values_in_other_bytes_are_the_same(tmp_path: Path) -> None:
    """A shard that another version of the compressor wrote, with the commit that says so."""
    case = make_case(ROWS)
    a, b = two(tmp_path, case, case)
    spec = a.segments[0].layout.arrays["gaps"]
    path = tmp_path / "b.kd" / spec.key(1)
    import tensorstore

    shutil.rmtree(tmp_path / "b.kd/kdcache/seals")
    metadata = spec.metadata()
    metadata["codecs"][0]["configuration"]["codecs"][1]["configuration"]["clevel"] = 1
    target = tmp_path / "written"
    rewritten = tensorstore.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(target)}, "metadata": metadata}, create=True
    ).result()
    values = np.stack([b.load(view, np.arange(64, 128)).arrays["gaps"] for view in (0, 1)])
    rewritten[:, 64:128].write(values).result()
    data = (target / "c/0/1/0").read_bytes()
    assert data != path.read_bytes()
    path.write_bytes(data)
    commit = tmp_path / "b.kd" / a.segments[0].layout.commit_key(1)
    record = json.loads(commit.read_text())
    from kdcache.base.canonical import canonical_json, sha256_hex

    record["shards"]["gaps"] = {"sha256": sha256_hex(data), "size": len(data)}
    commit.write_bytes(canonical_json(record))
    assert diff_stores(a, Store.open(tmp_path / "b.kd")).same


@pytest.mark.parametrize(
    ("part", "update", "said"),
    [
        ("dataset", {"probes": "others"}, r"the data sets differ .dataset.probes.: no row is in common"),
        ("plan", {"seed": 8}, r"the view plans differ .views.seed.: the teachers saw other pictures"),
    ],
)
def test_rows_that_are_not_common_are_not_compared(
    tmp_path: Path, part: str, update: dict[str, Any], said: str
) -> None:
    case = make_case(ROWS)
    a, b = two(tmp_path, case, changed(case, part, **update))
    found = diff_stores(a, b)
    assert found.rows is None
    assert re.search(said, found.note)
    assert not found.same
    asked = diff_stores(a, b, other_pictures=True)
    assert (asked.rows is not None) == (part == "plan")


def test_other_classes_and_other_partners_are_not_compared(tmp_path: Path) -> None:
    a, b = two(tmp_path, make_case(ROWS, 30), make_case(ROWS, 29))
    assert "no row is in common" in diff_stores(a, b).note  # labels of other classes are another data set
    mixed = make_case(ROWS, mix="mixup")
    (tmp_path / "mixed").mkdir()
    c, d = two(tmp_path / "mixed", mixed, reordered(mixed))
    found = diff_stores(c, d)
    assert found.rows is None
    assert "partners of mixing are drawn among neighbours" in found.note
    named = changed(make_case(ROWS), "dataset", class_names=tuple(map(str, range(30))))
    (tmp_path / "named").mkdir()
    e, f = two(tmp_path / "named", make_case(ROWS), named)
    assert diff_stores(e, f).rows is not None


def test_a_teacher_on_the_web_against_another_encoding(stage: Stage, tmp_path: Path, capsys: Capture) -> None:
    """The command line, with real stores, over http, with a picture; exit 0, 1 and 2."""
    full = tmp_path / "full.kd"
    extract(stage.asked(full, encoding="full"))
    shutil.copytree(stage.store, tmp_path / "copy.kd")
    with serving(Path(stage.store).parent) as site:
        url = f"{site.url}/digits.kd"
        assert answer(capsys, "diff", url, tmp_path / "copy.kd")["same"] is True
        assert kdcache("diff", url, full, "--plot", tmp_path / "p.png", "--views", "0:1") == 1
        shown, err = capsys.readouterr()
        assert kdcache("diff", url, full, "--json") == 1
        record = json.loads(capsys.readouterr().out)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    for said in ("encoding.k", "KL, nats, at least", "verdict: different", "agreement"):
        assert said in shown
    assert "error" not in err
    assert record["exit_code"] == 1
    assert record["rows"]["agreement"] == 1.0
    assert record["rows"]["kl_ab"]["mean"] < 1e-3
    assert record["rows"]["views"][0]["pixels"] == 1.0
    assert "1 or more" in refusal(capsys, "diff", stage.store, full, "--temperature", "0.5")
    assert "make a store with" in refusal(capsys, "diff", stage.store, tmp_path / "none.kd")
    other = tmp_path / "seed.kd"
    extract(stage.asked(other, seed=5))
    assert "nothing to draw" in refusal(capsys, "diff", stage.store, other, "--plot", tmp_path / "q.png")


def test_a_tally_is_its_values() -> None:
    values = np.random.RandomState(2).lognormal(-5, 3, 5000)
    tally = Tally()
    for part in np.split(values, 10):
        tally.add(part)
    tally.add(np.array([0.0, np.inf]))
    found = tally.spread()
    assert found.mean == pytest.approx(values.sum() / 5001)
    assert found.median == pytest.approx(np.median([*values, 0.0]), rel=0.0025)
    assert (found.max, found.infinite) == (values.max(), 1)
    assert sum(tally.coarse(5)) == 5001
    empty = Tally()
    empty.add(np.array([np.inf]))
    assert empty.spread().model_dump() == {"mean": None, "median": None, "max": None, "infinite": 1}
