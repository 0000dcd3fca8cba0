"""Canonical JSON and digests: the one way records become bytes, so that equal records have equal hashes."""

import hashlib
import json
from typing import Any

from kdcache.errors import FormatError, InvalidInputError

METADATA_LIMIT = 64 * 2**20  # bytes; a record above this is not one of ours


def canonical_json(record: Any) -> bytes:
    """Sorted keys, no spaces, UTF-8, no NaN, one final newline: what every hash of a record is taken over."""
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


def parse_json(data: bytes, name: str) -> dict[str, Any]:
    """A record read back. Raises FormatError, naming the file, for anything that is not a JSON object."""
    if len(data) > METADATA_LIMIT:
        raise FormatError(f"{name} is {len(data)} bytes; a record of a store has at most {METADATA_LIMIT}")
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name} is not JSON ({error}); restore it from another copy of the store") from error
    if not isinstance(record, dict):
        raise FormatError(f"{name} holds a JSON {type(record).__name__}; a record of a store is an object")
    return record
