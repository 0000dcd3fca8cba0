"""Records of JSON, one a line or all in a list, read one at a time and found again by their place in the file."""

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from kdcache.errors import InvalidInputError

LINES = (".jsonl", ".ndjson")


def records_of(path: Path) -> Iterator[tuple[int, Any]]:
    """Each record of a file, after its place there. Raises InvalidInputError, which names the line."""
    if path.suffix in LINES:
        with _opened(path) as file:
            place = 0
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield place, _parsed(line, f"{path}: line {number}")
                place += len(line)
        return
    text, decoder = _text(path), json.JSONDecoder()
    is_list = text.lstrip()[:1] == "["
    place = _next(text, text.index("[") + 1 if is_list else 0)
    while place < len(text) and not (is_list and text[place] == "]"):
        record, end = _decoded(decoder, text, place, path)
        yield place, record
        place = _next(text, end)
        if is_list and text[place : place + 1] == ",":
            place = _next(text, place + 1)


def record_at(path: Path, place: int) -> Any:
    """The record at a place that `records_of` gave."""
    if path.suffix not in LINES:
        return _decoded(json.JSONDecoder(), _text(path), place, path)[0]
    with _opened(path) as file:
        file.seek(place)
        return _parsed(file.readline(), f"{path}: byte {place}")


def _opened(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read ({error.strerror or error})") from error


@lru_cache(maxsize=1)
def _text(path: Path) -> str:
    """The text of a file, the last one that was read."""
    with _opened(path) as file:
        try:
            return str(file.read(), "utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"{path} is no UTF-8 ({error}); name files of JSON") from error


def _parsed(line: bytes, noun: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{noun} is no JSON ({error}); give a record a line") from error


def _decoded(decoder: json.JSONDecoder, text: str, place: int, path: Path) -> tuple[Any, int]:
    try:
        return decoder.raw_decode(text, place)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path} is no JSON ({error}); a record a line needs the ending .jsonl") from error


def _next(text: str, place: int) -> int:
    """The next place that holds no space."""
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place
