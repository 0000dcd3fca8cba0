"""A capture: rows of tokens and a teacher's answers to them, as files of others hold them. A layout is read by one
file, whose function makes a capture.

Shape letters: M answers of a row, K kept classes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from kdcache.base.arrays import Array, IntArray
from kdcache.errors import BadLogitsError, InvalidInputError
from kdcache.views.token_rows import TokenRows

EXACT, HALF = 1e-3, 1e-2  # above 1, of sums of probabilities from log-probabilities in f32, and in 16 bits


@dataclass(frozen=True)
class RowAnswers:
    """The answers to a row of tokens: answer m is the distribution of the token after token m. `place` names file and
    row.

    classes [M, K] i64: ids, best first. log_probs [M, K] f64. labels [M] f64: log-probability of the token that
    followed, None where the layout does not tell.
    """

    place: str
    classes: IntArray
    log_probs: Array
    labels: Array | None = None


@dataclass(frozen=True)
class Capture:
    """The files of a capture, opened. `name` is that of the data set, `k` the classes of an answer, `classes` all that
    there are, 0 where nobody says. `answers_from(row)` gives the answers to that row and those after it. `approximate`:
    log-probabilities are a fit to those of the teacher. `rounding`: how far above 1 their probabilities may sum.
    `files` are all that the answers hang on, `record` is what a store's provenance says of them."""

    rows: TokenRows
    name: str
    files: Sequence[Path]
    k: int
    answers_from: Callable[[int], Iterator[RowAnswers]]
    classes: int = 0
    rounding: float = EXACT
    approximate: bool = False
    record: Mapping[str, Any] = field(default_factory=dict)


def expanded(files: Sequence[str], suffixes: Sequence[str]) -> list[Path]:
    """The files that were named, and those of these suffixes in folders that were, sorted. Raises InvalidInputError."""
    paths: list[Path] = []
    for file in files:
        path = Path(file).expanduser()
        inside = sorted(_visible(path, suffixes)) if path.is_dir() else [path]
        if not inside:
            raise InvalidInputError(f"{file} holds no file that ends in {' or '.join(suffixes)}; name the files")
        paths += inside
    if absent := [path for path in paths if not path.is_file()]:
        raise InvalidInputError(f"{absent[0]} is not there; name files of captured answers, or a folder of them")
    return paths


def _visible(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    """The files of some suffixes in a folder, but for those in hidden folders, as `parquet:` has them."""
    for path in folder.rglob("*"):
        if path.suffix in suffixes and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def sound_answers(answers: RowAnswers, capture: Capture, classes: int, *, normalise: bool) -> tuple[RowAnswers, int]:
    """The answers to a row, and how many of them were normalised.

    Raises BadLogitsError, naming file, row and token, for log-probabilities that are not finite, that rise, or whose
    probabilities sum to more than 1, and for ids that stand twice or are none of the `classes`; InvalidInputError for
    another number of classes than the capture's.
    """
    classes_MK, log_probs_MK = answers.classes, answers.log_probs
    if not len(classes_MK):
        return replace(answers, classes=np.empty((0, capture.k), np.int64), log_probs=np.empty((0, capture.k))), 0
    if classes_MK.shape[1] != capture.k:
        raise InvalidInputError(
            f"{answers.place} has the top {classes_MK.shape[1]} of each token, the first row that of {capture.k}; "
            "import files of one k"
        )
    _refuse(
        answers,
        ~np.isfinite(log_probs_MK),
        lambda m, k: f"log-probability {k} is {log_probs_MK[m, k]}; every one must be finite: capture fewer classes",
    )
    _refuse(
        answers,
        (classes_MK < 0) | (classes_MK >= classes),
        lambda m, k: (
            f"id {k} is {classes_MK[m, k]}, and ids go from 0 to {classes - 1:,}: name the number of classes by "
            "--classes, or mend the file"
        ),
    )
    ascending_MK = np.sort(classes_MK, axis=1)
    _refuse(
        answers,
        ascending_MK[:, 1:] == ascending_MK[:, :-1],
        lambda m, k: f"id {ascending_MK[m, k]} stands twice; a class has one log-probability",
    )
    _refuse(
        answers,
        np.diff(log_probs_MK, axis=1) > 0,
        lambda m, k: (
            f"log-probability {k + 1} is {log_probs_MK[m, k + 1]:.6g}, above {log_probs_MK[m, k]:.6g} before it; "
            "they must fall"
        ),
    )
    if answers.labels is not None:
        labels_M1 = answers.labels[:, None]
        _refuse(
            answers,
            ~np.isfinite(labels_M1),
            lambda m, _: f"the log-probability of the token that follows is {labels_M1[m, 0]}; it must be finite",
        )
    sums_M1 = np.exp(log_probs_MK).sum(axis=1, keepdims=True)
    above = sums_M1 > 1.0 + capture.rounding
    if capture.approximate and normalise:
        shifts_M1 = np.where(above, np.log(np.maximum(sums_M1, 1.0)), 0.0)
        return replace(answers, log_probs=log_probs_MK - shifts_M1), int(above.sum())
    advice = (
        "its compression lost the difference; --normalise divides such answers by their sum, as DistillKit's losses do"
        if capture.approximate
        else "these are no log-probabilities at T = 1 of one distribution, and logits cannot be imported"
    )
    _refuse(answers, above, lambda m, _: f"the probabilities sum to {sums_M1[m, 0]:.4g}; {advice}")
    return answers, 0


def _refuse(answers: RowAnswers, wrong: Array, problem: Callable[[int, int], str]) -> None:
    """Raises BadLogitsError for the first answer with something `wrong` [M, any]."""
    if wrong.any():
        token, column = np.argwhere(wrong)[0].tolist()
        raise BadLogitsError(f"{answers.place}, token {token}: {problem(token, column)}")
