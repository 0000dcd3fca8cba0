"""`--without`: the taps that a copy of a store leaves out, which are far larger than its soft labels.

The copy keeps the content id: a seal covers each file by itself, through the commits, which are copied whole. So what
is there is proved as before, and `kdcache/partial.json` says what is not.
"""

from collections.abc import Sequence, Set

from kdcache.base.tap_names import TAP
from kdcache.errors import InvalidInputError, MissingBlockError
from kdcache.labels.encoding import Encoding
from kdcache.store.segment import Segment

TAPS = "taps"


def arrays_without(encoding: Encoding, words: Sequence[str], place: str) -> frozenset[str]:
    """The arrays of the taps that some words name, `taps` for all or `tap:NAME`, one or several between commas. Raises
    InvalidInputError for a word that names nothing which the store at a place keeps."""
    arrays = {f"{TAP}{tap.name}": {encoding.tap_array(tap.name)} for tap in encoding.taps}
    named = {TAPS: set().union(*arrays.values()), **arrays} if arrays else {}
    chosen = [word.strip() for text in words for word in text.split(",")]
    for word in chosen:
        if word not in named:
            kept, advice = (
                (", ".join(arrays), f"name some of these, or {TAPS}") if arrays else ("no taps", "copy it whole")
            )
            raise InvalidInputError(f"--without {word} was asked of {place}, which keeps {kept}; {advice}")
    return frozenset().union(*(named[word] for word in chosen))


def require_chosen(segments: Sequence[Segment], arrays: Set[str]) -> None:
    """Raises MissingBlockError where a copy itself lacks taps, on purpose, that are to be copied."""
    absent = {array for segment in segments for array in segment.left_out}
    if absent <= arrays:
        return
    root, encoding = segments[0].folder.root, segments[0].identity.encoding
    names = encoding.tap_names(absent | arrays)
    words = TAPS if len(names) == len(encoding.taps) else ",".join(f"{TAP}{name}" for name in names)
    problem = f"{root} is a copy without taps {', '.join(encoding.tap_names(absent))}"
    raise MissingBlockError(f"{problem}; leave them out too, --without {words}, or get them from where it came from")
