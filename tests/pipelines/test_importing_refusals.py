"""kdcache import: what is no capture, or no distribution, is refused by file, row and token."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdcache.errors import BadLogitsError, InvalidInputError
from kdcache.pipelines.importing.settings import ImportSettings
from kdcache.pipelines.importing.stage import import_store
from kdcache.store.store import Store
from tests.kits.captured import C, Row, known_rows, vllm_records, write_lines, write_plain

Columns = dict[str, list[Any]]


def run(files: Path, out: Path, layout: Any, teacher: str = "made-up", **settings: Any) -> None:
    import_store(
        [str(files)], str(out), layout=layout, teacher=teacher, settings=ImportSettings(**{"classes": C, **settings})
    )


def spoil(name: str, token: int, index: int, value: Any) -> Callable[[Columns], None]:
    """Put a value into the second row."""

    def change(columns: Columns) -> None:
        columns[name][1][token][index] = value(columns) if callable(value) else value

    return change


def first_of_token_3(columns: Columns) -> Any:
    return columns["token_ids"][1][3][0]


def logits(columns: Columns) -> None:
    columns["top_values"] = [[[v + 9 for v in token] for token in row] for row in columns["top_values"]]


def narrow(columns: Columns) -> None:
    for name in ("token_ids", "top_values"):
        columns[name][1] = [token[:4] for token in columns[name][1]]


def uneven(columns: Columns) -> None:
    columns["top_values"][1][2] = columns["top_values"][1][2][:4]


def fewer(columns: Columns) -> None:
    for name in ("token_ids", "top_values"):
        columns[name][1] = columns[name][1][:9]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (
            spoil("top_values", 3, 2, float("nan")),
            r"row 1, token 3: log-probability 2 is nan; every one must be finite",
        ),
        (spoil("top_values", 4, 5, float("-inf")), r"row 1, token 4: log-probability 5 is -inf"),
        (spoil("top_values", 3, 2, -0.5), r"row 1, token 3: log-probability 2 is -0.5, above -.* they must fall"),
        (spoil("token_ids", 3, 1, first_of_token_3), r"row 1, token 3: id \d+ stands twice"),
        (spoil("token_ids", 3, 1, 97), r"row 1, token 3: id 1 is 97, and ids go from 0 to 96"),
        (spoil("token_ids", 3, 1, -1), r"row 1, token 3: id 1 is -1"),
        (logits, r"row 0, token 0: the probabilities sum to \d.* logits cannot be imported"),
        (narrow, r"row 1 has the top 4 of each token, the first row that of 6; import files of one k"),
        (uneven, r"row 1, token 2: top_values has 4 numbers, token 0 has 6"),
        (fewer, r"row 1 has 16 tokens, 9 lists of token_ids and 9 of top_values; give one for each token"),
    ],
)
def test_a_row_that_is_no_distribution(tmp_path: Path, change: Callable[[Columns], None], error: str) -> None:
    path = write_plain(tmp_path / "rows.parquet", known_rows(), change)
    with pytest.raises((BadLogitsError, InvalidInputError), match=rf"{path}: {error}"):
        run(path, tmp_path / "a.kd", "distillkit")


def test_answers_that_stand_at_their_own_token(tmp_path: Path) -> None:
    """Entry i that foretells token i, as vLLM's own lists have it, is shifted by one."""

    def shifted(columns: Columns) -> None:
        for name in ("token_ids", "top_values"):
            columns[name] = [[row[0], *row] for row in columns[name]]

    path = write_plain(tmp_path / "rows.parquet", known_rows((64,) * 8), shifted)
    with pytest.raises(InvalidInputError, match=r"the best class is the token itself in \d+ of the first \d+ answers"):
        run(path, tmp_path / "a.kd", "distillkit")


@pytest.mark.parametrize(
    ("columns", "error"),
    [
        (
            ("input_ids", "text"),
            r"has columns input_ids, text; DistillKit's captures have input_ids with token_ids and",
        ),
        (("input_ids", "packed_indices", "exact_values", "coeffs"), r"DistillKit's legacy compression"),
    ],
)
def test_columns_of_another_layout(tmp_path: Path, columns: tuple[str, ...], error: str) -> None:
    pq.write_table(pa.table({name: [[[1]]] for name in columns}), tmp_path / "a.parquet")
    with pytest.raises(InvalidInputError, match=error):
        run(tmp_path / "a.parquet", tmp_path / "a.kd", "distillkit")
    with pytest.raises(InvalidInputError, match=r"holds no file that ends in .jsonl"):
        run(tmp_path, tmp_path.parent / "a.kd", "vllm")
    pq.write_table(
        pa.table({"input_ids": ["x"], "token_ids": [[1]], "top_values": [[[1.0]]]}), tmp_path / "text.parquet"
    )
    with pytest.raises(
        InvalidInputError, match=r"has string in column 'input_ids'; DistillKit writes lists of numbers"
    ):
        run(tmp_path / "text.parquet", tmp_path / "a.kd", "distillkit")
    with pytest.raises(InvalidInputError, match=r"a.kd would lie in .*, among the captured files"):
        run(tmp_path, tmp_path / "a.kd", "distillkit")
    with pytest.raises(InvalidInputError, match=r"b.parquet is not there"):
        run(tmp_path / "b.parquet", tmp_path / "a.kd", "distillkit")


def test_what_the_files_do_not_say(tmp_path: Path) -> None:
    path, out = write_plain(tmp_path / "rows.parquet", known_rows()), tmp_path / "a.kd"
    with pytest.raises(InvalidInputError, match=r"does not say how large the vocabulary is .* by --classes N"):
        run(path, out, "distillkit", classes=None)
    with pytest.raises(InvalidInputError, match=r"has token \d+ in row \d and the top 6, and there are 40 classes"):
        run(path, out, "distillkit", classes=40)
    with pytest.raises(InvalidInputError, match=r"the teacher has no name; .* by --teacher NAME"):
        run(path, out, "distillkit", teacher=" ")
    with pytest.raises(InvalidInputError, match=r"--compression is of --from distillkit"):
        run(path, out, "vllm", compression="a.yaml")
    with pytest.raises(InvalidInputError, match=r"sequence is 12, and blocks hold whole texts: give a power of two"):
        run(path, out, "distillkit", sequence=12)
    assert not out.exists()


def record(change: Callable[[dict[str, Any]], Any]) -> list[Any]:
    """Records of vLLM, the second of which is changed."""
    records = vllm_records(known_rows(), "python")
    change(records[1])
    return records


def more_ranks(prompt: dict[str, Any]) -> None:
    records = vllm_records([Row(prompt["prompt_token_ids"], known_rows()[1].log_probs)], "python")
    prompt["prompt_logprobs"] = [
        entry and {**entry, **{str(1000 + n): {"logprob": -9.0, "rank": n} for n in (7, 8, 9)}}
        for entry in records[0]["prompt_logprobs"]
    ]


def second_of_token_3(prompt: dict[str, Any], **changes: Any) -> None:
    parts = prompt["prompt_logprobs"][4].values()
    next(part for part in parts if part["rank"] == 2).update(changes)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda p: p.pop("prompt_token_ids"), r"row 1 has no prompt_token_ids; ask vLLM's server for return_token_ids"),
        (lambda p: p.pop("prompt_logprobs"), r"row 1 has request_id, .* and no prompt_logprobs; ask vLLM for"),
        (lambda p: p["prompt_token_ids"].pop(), r"row 1 has 15 tokens and 16 entries of prompt_logprobs"),
        (lambda p: p["prompt_token_ids"].reverse(), r"row 1, token \d+: id \d+ is not in its entry of prompt_logprobs"),
        (lambda p: p["prompt_logprobs"].__setitem__(4, None), r"row 1, token 4: id \d+ is not in its entry"),
        (lambda p: p["prompt_token_ids"].__setitem__(4, 2**70), r"row 1 has no prompt_token_ids"),
        (lambda p: p["prompt_logprobs"][4].update({str(2**70): {"logprob": -9.0, "rank": 9}}), r"id \d+ is none of a"),
        (lambda p: p["prompt_logprobs"].__setitem__(4, {"x": 1}), r"row 1: prompt_logprobs is not as vLLM writes it"),
        (lambda p: second_of_token_3(p, logprob=-9999.0), r"row 1, token 3: log-probability 1 is -inf"),
        (lambda p: second_of_token_3(p, logprob=-0.01), r"row 1, token 3: log-probability 1 is -0.01, above"),
        (more_ranks, r"has the 6 best ids, and .*row 1, token 1 the 9 best; import prompts of one prompt_logprobs=K"),
    ],
)  # fmt: skip
def test_what_is_not_as_vllm_writes_it(tmp_path: Path, change: Callable[[Any], Any], error: str) -> None:
    path = write_lines(tmp_path / "rows.jsonl", record(change))
    with pytest.raises((InvalidInputError, BadLogitsError), match=error):
        run(path, tmp_path / "a.kd", "vllm")


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("a.jsonl", '{"a": 1}\n{"a"\n', r"row 0 has a, and no prompt_logprobs"),
        ("a.jsonl", '{"a"\n', r"a.jsonl: line 1 is no JSON"),
        ("a.json", '[{"a"', r"a.json is no JSON .* a record a line needs the ending .jsonl"),
        ("a.json", "[3]", r"row 0 is a int; give the objects of vLLM"),
        ("a.jsonl", "\n", r"holds no prompt of two tokens; ask vLLM for prompt_logprobs=K"),
    ],
)
def test_what_is_no_json_of_prompts(tmp_path: Path, name: str, text: str, error: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInputError, match=error):
        run(tmp_path / name, tmp_path / "a.kd", "vllm")


def test_the_prompt_s_token_beside_the_best_does_not_count_as_one(tmp_path: Path) -> None:
    """vLLM lists k or k + 1 ids, and the one more may be next in rank."""
    rows = known_rows()
    for row, rank in zip(rows, (0, 6, 7, 50), strict=True):  # 6: the seventh
        row.tokens[1:] = np.argsort(-row.log_probs, axis=1)[:, rank].tolist()
    records = vllm_records(rows, "python")
    assert {len(entry) for record in records for entry in record["prompt_logprobs"][1:]} == {6, 7}
    run(write_lines(tmp_path / "rows.jsonl", records), tmp_path / "a.kd", "vllm")
    assert Store.open(tmp_path / "a.kd").identity.kept == 6
