"""kdcache import: a known teacher's answers come back from stores of its captures, and fit the data they are of."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers

from kdcache.base.progress import StopRequest
from kdcache.errors import InterruptedRunError, InvalidInputError, MismatchError
from kdcache.pipelines.importing.settings import ImportSettings
from kdcache.pipelines.importing.stage import ImportSummary, import_store
from kdcache.store.inspection import describe_rows, describe_store
from kdcache.store.store import Store
from kdcache.views.contents import content_fingerprint
from kdcache.views.fingerprint import token_fingerprints
from kdcache.views.sources import open_data
from kdcache.whole_store.verify import inspect_files
from tests.kits.captured import C, K, Row, known_rows, vllm_records, write_lines, write_packed, write_plain
from tests.kits.house import ROOT

GAP = 1 / 16  # of log-probabilities: half a step of a gap, and as much of their sum


def imported(files: Path, out: Path, layout: Any, **settings: Any) -> ImportSummary:
    return import_store(
        [str(files)], str(out), layout=layout, teacher="made-up", settings=ImportSettings(**{"classes": C, **settings})
    )


def captured(folder: Path, form: str, rows: list[Row]) -> tuple[Path, str]:
    """A capture in one of its forms, and its layout."""
    if form == "plain":
        return write_plain(folder / "rows.parquet", rows), "distillkit"
    if form == "packed":
        return write_packed(folder / "packed", rows), "distillkit"
    suffix = "json" if form in ("chat", "flat") else "jsonl"
    return write_lines(folder / f"rows.{suffix}", vllm_records(rows, form)), "vllm"


FORMS = ("plain", "packed", "python", "flat", "completions", "chat")


@pytest.mark.parametrize("form", FORMS)
def test_a_known_teacher_comes_back(tmp_path: Path, form: str) -> None:
    rows = known_rows()
    files, layout = captured(tmp_path, form, rows)
    summary = imported(files, tmp_path / "a.kd", layout)
    store = Store.open(f"{tmp_path}/a.kd@{summary.content_id}")
    assert (store.identity.dataset.sequence, store.rows, store.identity.kept) == (16, 64, K)
    for text, row in enumerate(rows):
        count = len(row.log_probs)
        positions = text * 16 + np.arange(count)
        soft = store.read(0, positions)
        assert np.array_equal(soft.classes, row.best)
        assert np.abs(soft.log_probs(1.0) - row.values).max() < GAP
        assert np.abs(soft.tail_mass(1.0) - (1 - np.exp(row.values).sum(axis=1))).max() < GAP
        assert store.labels[positions].tolist() == row.tokens[1:]
        wanted = row.log_probs[np.arange(count), row.tokens[1:]]
        known = np.full(count, layout == "vllm") | (row.best == np.array(row.tokens[1:])[:, None]).any(axis=1)
        label_log_probs = soft.label_log_prob(1.0)
        assert known.any()
        assert np.abs(label_log_probs[known] - wanted[known]).max() < GAP
        assert np.isnan(label_log_probs[~known]).all()
    assert inspect_files(f"{tmp_path}/a.kd").whole
    labelled = sum(len(row.log_probs) for row in rows)
    hits = sum(int((row.best[:, 0] == row.tokens[1:]).sum()) for row in rows)
    assert (summary.labelled, summary.accuracy) == (labelled, hits / labelled)


def test_other_temperatures_are_refused_by_name(tmp_path: Path) -> None:
    imported(write_plain(tmp_path / "rows.parquet", known_rows()), tmp_path / "a.kd", "distillkit")
    soft = Store.open(tmp_path / "a.kd").read(0, [0, 1])
    for ask in (soft.log_probs, soft.tail_mass, soft.label_log_prob):
        with pytest.raises(InvalidInputError, match=r"known at T = 1 alone; use T = 1, or drop the tail"):
            ask(2.0)


def test_what_has_no_answer_says_nothing(tmp_path: Path) -> None:
    """Padding, and the last token of a row: no label, and every class as likely."""
    imported(write_plain(tmp_path / "rows.parquet", known_rows()), tmp_path / "a.kd", "distillkit")
    store = Store.open(tmp_path / "a.kd")
    positions = np.flatnonzero(store.labels < 0)
    assert positions.tolist() == [*range(8, 16), 31, *range(33, 48), *range(59, 64)]
    soft = store.read(0, positions)
    assert np.abs(soft.log_probs(1.0) + np.log(C)).max() < 1 / 64
    assert np.abs(soft.tail_mass(1.0) - (1 - K / C)).max() < 1 / 64
    assert np.isnan(soft.label_log_prob(1.0)).all()


ROWS_PY = """
import json
from pathlib import Path
def data():
    return [{"input_ids": ids} for ids in json.loads(Path(r"%s").read_text())]
"""


@pytest.mark.parametrize("sequence", [None, 8, 32])
def test_the_data_set_is_that_of_the_same_rows(tmp_path: Path, sequence: int | None) -> None:
    """As parquet: opens them, and for vLLM's JSON as a callable of tokens does, which has texts of one length."""
    rows = known_rows()
    plain, lines = (
        write_plain(tmp_path / "rows.parquet", rows),
        write_lines(tmp_path / "a.jsonl", vllm_records(rows, "")),
    )
    arguments = {"column": "input_ids"} | ({"sequence": sequence} if sequence else {})
    data = open_data(f"parquet:{plain}", arguments)
    for files, layout in ((plain, "distillkit"), (lines, "vllm")):
        imported(files, tmp_path / f"{layout}.kd", layout, sequence=sequence)
        store = Store.open(tmp_path / f"{layout}.kd")
        assert store.identity.dataset == data.identity()
        arrays = store.load(0, np.arange(store.rows)).arrays
        assert arrays["pixels"].tolist() == np.concatenate([*map(token_fingerprints, data.samples.tokens)]).tolist()
        contents = store.segments[0].read(0, np.arange(store.rows), ["contents"]).arrays["contents"]
        texts = [content_fingerprint(data.samples, text, None, "bytes") for text in range(len(data.ids))]
        assert contents.tolist() == np.repeat(texts, data.sequence).tolist()
    if sequence is None:
        (tmp_path / "ids.json").write_text(str([row.tokens for row in rows]))
        (tmp_path / "own.py").write_text(ROWS_PY % (tmp_path / "ids.json"))
        assert open_data(f"{tmp_path}/own.py:data", {}).identity() == store.identity.dataset


def test_a_long_row_is_cut_and_keeps_its_answers(tmp_path: Path) -> None:
    rows = known_rows()
    imported(write_plain(tmp_path / "rows.parquet", rows), tmp_path / "a.kd", "distillkit", sequence=4)
    store = Store.open(tmp_path / "a.kd")
    assert store.rows == 4 * (3 + 4 + 1 + 3)
    positions = np.arange(12, 12 + 15)  # the second row, which begins at text 3
    assert np.abs(store.read(0, positions).log_probs(1.0) - rows[1].values).max() < GAP
    assert store.labels[positions].tolist() == rows[1].tokens[1:]


def many_rows() -> list[Row]:
    return known_rows((40, 64, 64, 3, 17) * 2, seed=3)


class Interrupted:
    """Progress that asks for a stop once a block was begun."""

    def __init__(self, tokens: int) -> None:
        self.stop, self.tokens = StopRequest(), tokens

    def __call__(self, label: str, done: int, total: int) -> None:
        self.stop.requested |= label == "importing" and done >= self.tokens


@pytest.mark.parametrize("form", ["plain", "packed", "python", "flat"])
def test_an_import_goes_on_where_it_was_stopped(tmp_path: Path, form: str) -> None:
    rows = many_rows()
    files, layout = captured(tmp_path, form, rows)
    whole = imported(files, tmp_path / "whole.kd", layout, sequence=32)
    assert whole.blocks > 2
    progress = Interrupted(1)
    with pytest.raises(InterruptedRunError, match="run the same kdcache import again"):
        import_store(
            [str(files)], f"{tmp_path}/a.kd", layout=layout, teacher="made-up",  # type: ignore[arg-type]
            settings=ImportSettings(classes=C, sequence=32), progress=progress, stop=progress.stop,
        )  # fmt: skip
    assert 0 < len(Store.open_for_writing(tmp_path / "a.kd").segments[0].commits()) < whole.blocks
    summary = imported(files, tmp_path / "a.kd", layout, sequence=32)
    assert 0 < summary.present < summary.blocks
    assert summary.content_id == whole.content_id
    again = imported(files, tmp_path / "a.kd", layout, sequence=32)
    assert (again.present, again.content_id) == (whole.blocks, whole.content_id)


def test_another_capture_is_another_teacher(tmp_path: Path) -> None:
    """Nobody tells its weights, so the files stand for them; and a folder of other files is no place."""
    plain = write_plain(tmp_path / "rows.parquet", known_rows())
    imported(plain, tmp_path / "a.kd", "distillkit")
    other = write_plain(tmp_path / "other.parquet", [Row(row.tokens, row.log_probs[:, ::-1]) for row in known_rows()])
    with pytest.raises(MismatchError, match=r"teacher\.weights"):
        imported(other, tmp_path / "a.kd", "distillkit")
    with pytest.raises(InvalidInputError, match=r"holds other files"):
        imported(plain, tmp_path, "distillkit")
    with pytest.raises(InvalidInputError, match=r"would lie in .*a.kd, a store itself"):
        imported(plain, tmp_path / "a.kd/b.kd", "distillkit")
    record = describe_store(Store.open(tmp_path / "a.kd"))
    assert record["teacher_weights"].startswith("unknown; answers imported from files of sha256 ")
    assert (record["teacher"], record["data"]) == ("made-up", "parquet column=input_ids")
    assert record["soft_labels"] == f"top {K}, default quantisation, residuals, mass of the tail"
    assert record["made_on"] == "imported from distillkit"
    assert describe_rows(Store.open(tmp_path / "a.kd"), 2, None)[0]["label"] == str(known_rows()[0].tokens[1])


def test_the_whole_vocabulary_leaves_no_tail(tmp_path: Path) -> None:
    rows = known_rows(classes=K)
    imported(write_plain(tmp_path / "rows.parquet", rows), tmp_path / "a.kd", "distillkit", classes=K)
    soft = Store.open(tmp_path / "a.kd").read(0, np.arange(8))
    assert soft.tail_mass(1.0).tolist() == [0.0] * 8
    assert np.abs(soft.log_probs(1.0) - rows[0].values).max() < GAP


@pytest.mark.parametrize("form", ["plain", "python"])
def test_a_row_of_one_token_has_no_answer(tmp_path: Path, form: str) -> None:
    rows = known_rows((1, 9, 1))
    files, layout = captured(tmp_path, form, rows)
    imported(files, tmp_path / "a.kd", layout)
    store = Store.open(tmp_path / "a.kd")
    assert np.flatnonzero(store.labels >= 0).tolist() == [*range(16, 24)]
    assert np.abs(store.read(0, np.arange(16, 24)).log_probs(1.0) - rows[1].values).max() < GAP


def test_a_folder_is_read_as_parquet_reads_it(tmp_path: Path) -> None:
    folder = write_packed(tmp_path / "packed", known_rows())
    (folder / ".cache").mkdir()
    write_plain(folder / ".cache/old.parquet", known_rows())
    summary = imported(folder, tmp_path / "a.kd", "distillkit", classes=None)
    assert summary.files == 3  # two of parquet, and the configuration
    data = open_data(f"parquet:{folder}", {"column": "input_ids"})
    assert Store.open(tmp_path / "a.kd").identity.dataset == data.identity()
    assert summary.classes == C  # of the configuration


def test_a_tokenizer_joins_the_identity_and_tells_the_vocabulary(tmp_path: Path) -> None:
    words = tokenizers.models.WordLevel({f"w{number}": number for number in range(C + 3)}, unk_token="w0")
    tokenizers.Tokenizer(words).save(str(tmp_path / "words.json"))
    path = write_plain(tmp_path / "rows.parquet", known_rows())
    tokenizer = str(tmp_path / "words.json")
    summary = imported(path, tmp_path / "a.kd", "distillkit", classes=None, tokenizer=tokenizer)
    identity = Store.open(tmp_path / "a.kd").identity
    assert identity.dataset == open_data(f"parquet:{path}", {"tokenizer": tokenizer}).identity()
    assert identity.dataset != open_data(f"parquet:{path}", {}).identity()
    assert summary.classes == C + 3


def test_lists_of_any_kind_of_arrow(tmp_path: Path) -> None:
    rows = known_rows()
    table = pq.read_table(write_plain(tmp_path / "rows.parquet", rows))
    kinds = {
        "input_ids": pa.large_list(pa.int32()),
        "token_ids": pa.large_list(pa.list_(pa.uint32(), K)),
        "top_values": pa.list_(pa.large_list(pa.float64())),
    }
    other = pa.table({name: pa.array(table.column(name).to_pylist(), kind) for name, kind in kinds.items()})
    pq.write_table(other, tmp_path / "other.parquet")
    imported(tmp_path / "other.parquet", tmp_path / "a.kd", "distillkit")
    assert np.abs(Store.open(tmp_path / "a.kd").read(0, np.arange(8)).log_probs(1.0) - rows[0].values).max() < GAP


def test_the_page_s_rows_are_the_data_set_of_its_capture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs/importing.md").read_text()
    assert len(page.splitlines()) < 150
    (tmp_path / "rows.py").write_text(page.partition('```python title="rows.py"\n')[2].partition("```")[0])
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "outputs.jsonl", vllm_records(known_rows(), "python"))
    imported(tmp_path / "outputs.jsonl", tmp_path / "a.kd", "vllm")
    assert open_data("rows.py:data", {}).identity() == Store.open(tmp_path / "a.kd").identity.dataset


def test_an_attention_mask_in_the_file_counts_as_it_does_in_training(tmp_path: Path) -> None:
    rows = known_rows((8, 8))
    table = pq.read_table(write_plain(tmp_path / "rows.parquet", rows))
    masks = pa.array([[1] * 5 + [0] * 3, [1] * 8], pa.list_(pa.int64()))
    pq.write_table(table.append_column("attention_mask", masks), tmp_path / "masked.parquet")
    imported(tmp_path / "masked.parquet", tmp_path / "a.kd", "distillkit")
    store = Store.open(tmp_path / "a.kd")
    assert store.labels[:8].tolist() == [*rows[0].tokens[1:5], -1, -1, -1, -1]
    assert store.identity.dataset == open_data(f"parquet:{tmp_path}/masked.parquet", {}).identity()
