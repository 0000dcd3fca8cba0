"""vLLM's `prompt_logprobs` in JSON: of its Python `RequestOutput`, or an answer of its server.

Worked from vLLM's sources as of 2025 and 2026 (`vllm.logprobs`, `vllm.entrypoints.openai`). Entry i of a prompt is the
distribution that foretold token i: a dict of id to `logprob` and `rank`, null for the first token. It has the k best,
and the prompt's own token where that is not among them, with its own rank. The same may be written flat
(`FlatLogprobs`), as lists of all entries and where each token's begin and end.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdcache.base.limits import CLASSES_MAX
from kdcache.base.progress import Activity, Progress, silent
from kdcache.errors import InvalidInputError
from kdcache.pipelines.importing.capture import Capture, RowAnswers, expanded
from kdcache.pipelines.importing.json_records import record_at, records_of
from kdcache.views.label_numbers import listed
from kdcache.views.token_rows import TokenRows

SUFFIXES = (".jsonl", ".ndjson", ".json")
IDS, LOG_PROBS = "prompt_token_ids", "prompt_logprobs"
NEVER = -9999.0  # what vLLM's server writes for -inf

Entries = dict[int, tuple[float, int | None]]  # log-probability and rank of each id, of one token


@dataclass(frozen=True)
class _Place:
    """The place of a prompt: its record in a file, and its number among the choices of that."""

    path: Path
    place: int
    choice: int
    name: str


def open_vllm(files: Sequence[str], progress: Progress = silent) -> Capture:
    """The capture in some files of JSON, all of which are read once. Raises InvalidInputError."""
    paths = expanded(files, SUFFIXES)
    places, rows = list[_Place](), list[Any]()
    least_ranks: tuple[int, str] | None = None  # the smallest and the largest number of ranks, and where
    most_ranks: tuple[int, str] = (0, "")
    for path in paths:
        activity, size = Activity(f"reading {path.name}", "bytes"), path.stat().st_size
        for number, (place, record) in enumerate(records_of(path)):
            for choice, prompt in enumerate(_prompts(record, f"{path}: row {number}")):
                name = f"{path}: row {number}" + (f", choice {choice}" if choice else "")
                places.append(_Place(path, place, choice, name))
                rows.append(np.asarray(prompt[IDS], dtype=np.int64))
                for token, entries in enumerate(_entries(prompt, name), 1):
                    ranks = _ranks(entries)
                    if least_ranks is None or ranks < least_ranks[0]:
                        least_ranks = ranks, f"{name}, token {token}"
                    most_ranks = max(most_ranks, (ranks, f"{name}, token {token}"), key=lambda pair: pair[0])
            progress(activity, place, size)
        progress(activity, size, size)
    if least_ranks is None:
        raise InvalidInputError(f"{paths[0]} holds no prompt of two tokens; ask vLLM for {LOG_PROBS}=K")
    k, where = least_ranks
    if k == 0 or most_ranks[0] > k + 1:  # one more where the prompt's own token is next in rank
        raise InvalidInputError(
            f"{where} has the {k} best ids, and {most_ranks[1]} the {most_ranks[0]} best; import prompts of one "
            f"{LOG_PROBS}=K, above 0"
        )
    return Capture(
        TokenRows.of(rows, "vllm"),
        "vllm",
        paths,
        k,
        lambda row: _answers_from(places[row:], k),
        record={"layout": "vllm"},
    )


def _answers_from(places: Sequence[_Place], k: int) -> Iterator[RowAnswers]:
    last: tuple[Path, int] | None = None
    prompts: list[Mapping[str, Any]] = []
    for place in places:
        if (place.path, place.place) != last:
            last = place.path, place.place
            prompts = _prompts(record_at(*last), place.name)
        yield _answers(prompts[place.choice], place.name, k)


def _answers(prompt: Mapping[str, Any], name: str, k: int) -> RowAnswers:
    """The answers to a prompt: that which foretold token i stands at token i - 1."""
    ids, entries = prompt[IDS], _entries(prompt, name)
    classes, log_probs = np.empty((len(entries), k), np.int64), np.empty((len(entries), k))
    labels = np.empty(len(entries))
    for token, token_entries in enumerate(entries):
        by_rank = {rank: number for number, (_, rank) in token_entries.items()}
        best = [by_rank[rank] for rank in range(1, k + 1)]
        classes[token], log_probs[token] = best, [token_entries[number][0] for number in best]
        labels[token] = token_entries[ids[token + 1]][0]
    return RowAnswers(name, classes, log_probs, labels)


def _ranks(entries: Entries) -> int:
    """The k of an answer: ranks 1 to k are there."""
    ranks = {rank for _, rank in entries.values()}
    return next(rank for rank in range(len(ranks) + 1) if rank + 1 not in ranks)


def _prompts(record: Any, name: str) -> list[Mapping[str, Any]]:
    """The prompts of a record that have answers, each with its ids. Raises InvalidInputError."""
    if not isinstance(record, Mapping):
        raise InvalidInputError(f"{name} is a {type(record).__name__}; give the objects of vLLM")
    choices = record.get("choices")
    parts = [record, *([part for part in choices if isinstance(part, Mapping)] if isinstance(choices, list) else [])]
    prompts = [part for part in parts if part.get(LOG_PROBS) is not None]
    if not prompts:
        raise InvalidInputError(
            f"{name} has {listed(list(map(str, record)))}, and no {LOG_PROBS}; ask vLLM for {LOG_PROBS}=K"
        )
    for prompt in prompts:
        ids = prompt.get(IDS)
        if not isinstance(ids, list) or not all(type(number) is int and 0 <= number < CLASSES_MAX for number in ids):
            raise InvalidInputError(f"{name} has no {IDS}; ask vLLM's server for return_token_ids=true")
    return prompts


def _entries(prompt: Mapping[str, Any], name: str) -> list[Entries]:
    """The entries of each token of a prompt but the first. Raises InvalidInputError."""
    ids, answers = prompt[IDS], prompt[LOG_PROBS]
    try:
        by_token = _of_flat(answers) if isinstance(answers, Mapping) else [_of_dict(entry) for entry in answers]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError(
            f"{name}: {LOG_PROBS} is not as vLLM writes it ({type(error).__name__}: {error}); give a dict of ids to "
            "logprob and rank for each token, null for the first"
        ) from error
    if len(by_token) != len(ids):
        raise InvalidInputError(
            f"{name} has {len(ids)} tokens and {len(by_token)} entries of {LOG_PROBS}; give one for each, null for "
            "the first"
        )
    for token, entries in enumerate(by_token[1:], 1):
        if ids[token] not in entries:
            raise InvalidInputError(
                f"{name}, token {token}: id {ids[token]} is not in its entry of {LOG_PROBS} ("
                f"{listed(list(map(str, entries)))}), where vLLM always puts it; give ids and "
                "log-probabilities of one prompt"
            )
    return by_token[1:]


def _of_dict(entry: Any) -> Entries:
    """The entries of a token, none of null."""
    if entry is None:
        return {}
    return {_id(number): (_log_prob(part["logprob"]), part["rank"]) for number, part in entry.items()}


def _of_flat(flat: Mapping[str, Any]) -> list[Entries]:
    """The same of all tokens, from lists of all entries; an id that stands twice has its later rank, as in a dict."""
    return [
        {
            _id(flat["token_ids"][at]): (_log_prob(flat["logprobs"][at]), flat["ranks"][at])
            for at in range(int(start), int(stop))
        }
        for start, stop in zip(flat["start_indices"], flat["end_indices"], strict=True)
    ]


def _id(value: Any) -> int:
    if not 0 <= (number := int(value)) < CLASSES_MAX:
        raise ValueError(f"id {number} is none of a vocabulary")
    return number


def _log_prob(value: Any) -> float:
    number = float(value)
    return -np.inf if number == NEVER else number
