"""Captures of a teacher that is known whole, in the layouts in which DistillKit and vLLM write them.

Shape letters: M tokens of a row but the last, C classes, K captured classes.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Array = Any
C, K = 97, 6
IDS = pa.list_(pa.uint64())
BYTES = pa.list_(pa.list_(pa.uint8()))


@dataclass(frozen=True)
class Row:
    """A row of tokens, and the log-probabilities [M, C] of the token after each but the last."""

    tokens: list[int]
    log_probs: Array

    @property
    def best(self) -> Array:
        """[M, K] ids, best first."""
        return np.argsort(-self.log_probs, axis=1, kind="stable")[:, :K]

    @property
    def values(self) -> Array:
        """[M, K] f32."""
        return np.take_along_axis(self.log_probs, self.best, axis=1).astype(np.float32)


def known_rows(lengths: Sequence[int] = (9, 16, 2, 12), *, seed: int = 0, classes: int = C) -> list[Row]:
    """Rows of tokens that follow the teacher's best class in about half of all places."""
    random, rows = np.random.default_rng(seed), []
    for length in lengths:
        logits = random.normal(0, 2, (length - 1, classes))
        log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        tokens = random.integers(0, classes, length)
        follows = random.random(length - 1) < 0.5
        tokens[1:][follows] = log_probs.argmax(axis=1)[follows]
        rows.append(Row(tokens.tolist(), log_probs))
    return rows


def write_plain(
    path: Path, rows: Sequence[Row], change: Callable[[dict[str, list[Any]]], None] = lambda _: None
) -> Path:
    """DistillKit's columns of ids and log-probabilities; `change` may spoil them."""
    columns: dict[str, list[Any]] = {
        "input_ids": [row.tokens for row in rows],
        "token_ids": [row.best.tolist() for row in rows],
        "top_values": [row.values.tolist() for row in rows],
    }
    change(columns)
    types = {
        "input_ids": IDS,
        "token_ids": pa.list_(pa.list_(pa.int64())),
        "top_values": pa.list_(pa.list_(pa.float32())),
    }
    pq.write_table(pa.table({name: pa.array(v, types[name]) for name, v in columns.items()}), path, row_group_size=3)
    return path


def write_packed(folder: Path, rows: Sequence[Row], **changes: Any) -> Path:
    """DistillKit's bytes, and its configuration beside them: `changes` to one of K floats."""
    folder.mkdir(exist_ok=True)
    config = {
        "d": C, "k": K, "exact_k": K, "exact_dtype": "float32", "polynomial_terms": None, "term_dtype": "float32",
        "residual_bins": [], "delta_encoding": False, "error_diffusion": False, "normalize_t": False, **changes,
    }  # fmt: skip
    (folder / "compression_config.yaml").write_text(json.dumps(config))  # which is YAML as well
    bits = int(np.ceil(np.log2(config["d"])))
    columns = {
        "input_ids": pa.array([row.tokens for row in rows], IDS),
        "compressed_logprobs": pa.array([compress(row.values, config).tolist() for row in rows], BYTES),
        "bytepacked_indices": pa.array([pack_bits(row.best, bits).tolist() for row in rows], BYTES),
    }
    half = len(rows) // 2
    table = pa.table(columns)
    pq.write_table(table.slice(0, half), folder / "data_0.parquet")
    pq.write_table(table.slice(half), folder / "data_1.parquet")
    return folder


def compress(values: Array, config: dict[str, Any]) -> Array:
    """[M, bytes] u8 of log-probabilities [M, K] that fall."""
    values = values.astype(np.float64)
    if config["delta_encoding"]:
        values = np.diff(values, axis=1, prepend=0.0)
    exact, others = values[:, : config["exact_k"]], values[:, config["exact_k"] :]
    parts = [float_bytes(exact, config["exact_dtype"])]
    if config["polynomial_terms"]:
        rank = np.linspace(0, 1, others.shape[1]) if config["normalize_t"] else np.arange(others.shape[1])
        basis = np.stack(
            [np.sqrt(rank) if term == "sqrt" else np.float64(rank) ** term for term in config["polynomial_terms"]],
            axis=1,
        )
        coefficients = np.linalg.lstsq(basis, others.T, rcond=None)[0].T
        parts.append(float_bytes(coefficients, config["term_dtype"]))
        others = others - coefficients.astype(np.float32) @ basis.T
    for part in config["residual_bins"]:
        residual, others = others[:, : part["num_elements"]], others[:, part["num_elements"] :]
        half = 1 << part["element_bits"] - 1
        scale = np.abs(residual).max(axis=1, keepdims=True) / half
        parts.append(float_bytes(scale, part["scale_dtype"]))
        numbers = np.clip(np.rint(residual / scale), -half, half - 1) + half
        if part["element_bits"] == 1:
            numbers = residual > 0
        parts.append(pack_bits(numbers.astype(np.int64), part["element_bits"]))
    return np.concatenate(parts, axis=1)


def float_bytes(values: Array, dtype: str) -> Array:
    """[M, bytes] u8 of floats [M, n], little-endian."""
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(values, "<f4").view("<u4")
        values, dtype = (bits + 0x7FFF + (bits >> 16 & 1) >> 16).astype("<u2"), "uint16"
    return np.ascontiguousarray(values.astype(dtype)).view(np.uint8).reshape(len(values), -1)


def pack_bits(numbers: Array, bits: int) -> Array:
    """[M, bytes] u8 of integers [M, n] of some bits, most significant first."""
    flags = numbers[..., None] >> np.arange(bits - 1, -1, -1) & 1
    return np.packbits(flags.reshape(len(numbers), -1).astype(np.uint8), axis=1)


def vllm_entries(row: Row, k: int = K) -> list[Any]:
    """vLLM's `prompt_logprobs` of a row: the token's own entry first, then the k best, as a dict has them."""
    entries: list[Any] = [None]
    for token, log_probs in zip(row.tokens[1:], row.log_probs, strict=True):
        order = np.argsort(-log_probs, kind="stable")
        ranks = {int(number): rank for rank, number in enumerate(order, 1)}
        entries.append(
            {
                str(number): {"logprob": float(log_probs[number]), "rank": ranks[number], "decoded_token": f" {number}"}
                for number in dict.fromkeys([token, *order[:k].tolist()])
            }
        )
    return entries


def flat(entries: Sequence[Any]) -> dict[str, list[Any]]:
    """The same as vLLM's FlatLogprobs: lists of all entries."""
    lists: dict[str, list[Any]] = {
        name: [] for name in ("start_indices", "end_indices", "token_ids", "logprobs", "ranks", "decoded_tokens")
    }
    for entry in entries:
        lists["start_indices"].append(len(lists["token_ids"]))
        for number, part in (entry or {}).items():
            for name, value in (
                ("token_ids", int(number)), ("logprobs", part["logprob"]), ("ranks", part["rank"]),
                ("decoded_tokens", None),
            ):  # fmt: skip
                lists[name].append(value)
        lists["end_indices"].append(len(lists["token_ids"]))
    return lists


def vllm_records(rows: Sequence[Row], form: str) -> list[Any]:
    """Records of rows: of Python's `RequestOutput`, flat or not, or of the server's two kinds of answers."""
    prompts = [{"prompt_token_ids": row.tokens, "prompt_logprobs": vllm_entries(row)} for row in rows]
    if form == "flat":
        return [{**prompt, "prompt_logprobs": flat(prompt["prompt_logprobs"])} for prompt in prompts]
    if form == "completions":
        choices = [{"index": index, "text": " x", **prompt} for index, prompt in enumerate(prompts)]
        return [
            {"object": "text_completion", "choices": choices[:2]},
            {"object": "text_completion", "choices": choices[2:]},
        ]
    if form == "chat":
        return [{"object": "chat.completion", "choices": [{"index": 0, "message": {}}], **prompt} for prompt in prompts]
    return [{"request_id": str(number), "outputs": [], **prompt} for number, prompt in enumerate(prompts)]


def write_lines(path: Path, records: Sequence[Any]) -> Path:
    """Records as JSON: a line each, or one list in a file that ends in .json."""
    text = json.dumps(records, indent=1) if path.suffix == ".json" else "".join(json.dumps(r) + "\n" for r in records)
    path.write_text(text)
    return path
