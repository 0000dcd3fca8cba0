"""Canonical JSON and digests. All records become bytes here, so that equal records have equal hashes."""

import hashlib
import json
import math
import re
from typing import Any

from kdcache.base.limits import METADATA_LIMIT, NESTING_LIMIT, VALUES_LIMIT
from kdcache.errors import FormatError, InvalidInputError

_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)  # a string, closed or not, or a bracket
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def canonical_json(record: Any) -> bytes:
    """A record as bytes, over which all its hashes are taken: sorted keys, no spaces, UTF-8, no NaN, a final newline.

    Raises InvalidInputError for a value that JSON cannot hold.
    """
    try:
        text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode() + b"\n"
    except (ValueError, UnicodeEncodeError) as error:
        raise InvalidInputError(
            f"a setting cannot be recorded: {error}; use finite numbers and valid Unicode"
        ) from error


def sha256_hex(data: bytes | memoryview) -> str:
    """sha256 as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def parse_json(data: bytes, name: str, *, limit: int = METADATA_LIMIT) -> dict[str, Any]:
    """A record from its bytes. Raises FormatError, naming the file, for all but a JSON object of bounded size."""
    if len(data) > limit:
        raise FormatError(f"{name} has {len(data)} bytes, allowed are {limit}; fetch the store again")
    _require_shallow(data, name)
    try:
        record = _decoder.decode(data.decode())
        if _ESCAPED_SURROGATE.search(data):
            json.dumps(record, ensure_ascii=False).encode()  # raises for half a pair
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name} is not JSON ({error}); restore it from another copy of the store") from error
    if not isinstance(record, dict):
        raise FormatError(f"{name} holds a JSON {type(record).__name__}; a record of a store is an object")
    return record


def _require_shallow(data: bytes, name: str) -> None:
    """Raises FormatError for bytes that would take far more memory once parsed, before any are."""
    brackets = data.count(b"[") + data.count(b"{")
    if (values := brackets + data.count(b",")) > VALUES_LIMIT:
        raise FormatError(f"{name} holds some {values} values, allowed are {VALUES_LIMIT}; fetch the store again")
    if brackets <= NESTING_LIMIT:
        return
    depth = 0
    for token in _TOKEN.finditer(data):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token.group(), 0)
        if depth > NESTING_LIMIT:
            raise FormatError(f"{name} is nested more than {NESTING_LIMIT} deep; fetch the store again")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        keys: set[str] = set()
        duplicate = next(key for key, _ in pairs if key in keys or keys.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {duplicate[:80]!r} stands there twice")
    return record


def _finite_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:80]} is no finite number")
    return number


_decoder = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_float=_finite_number, parse_constant=_finite_number)
