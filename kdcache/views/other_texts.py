"""Texts that are not a store's are refused: by which words they differ, or which of them are others, and the way on."""

import numpy as np
import xxhash

from kdcache.views.data_parts import Described, Extracted, shown_ids
from kdcache.views.texts import sequence_of

COMPARED = 100_000  # texts up to which a data set is read to say which are others


def text_explanation(store: Extracted, data: Described) -> str:
    """The difference of texts from a store's, in words, and the next step."""
    stored, sequence = store.identity.dataset, sequence_of(data.samples)
    if stored.sequence != sequence:
        kind = f"texts of {stored.sequence} tokens" if stored.sequence > 1 else "pictures"
        given = f"texts of {sequence}" if sequence > 1 else "pictures"
        advice = f"; give --data-set sequence={stored.sequence}" if min(stored.sequence, sequence) > 1 else ""
        return f"the store holds {kind}, the data set {given}{advice}"
    if stored.tokenizer and stored.tokenizer != data.identity().tokenizer:
        return "its tokens were made by another tokenizer; name the teacher's own by --data-set tokenizer=FILE"
    count, here = store.rows // sequence, len(data.ids)
    if count != here:
        return f"the store has {count:,} texts, the data set {here:,}; give the files and the words of the store"
    advice = "restore the texts as they were, or extract a store of these"
    if store.identity.encoding.contents != "bytes" or count > COMPARED:
        return advice
    differing = [index for index, known in _known(store, sequence) if known != _contents(data, index)]
    if not differing:
        return f"all texts that stand in the store are the same; other ids, or other tokens that count: {advice}"
    return (
        f"{len(differing):,} of {count:,} texts are others than they were: "
        f"{shown_ids([data.ids[index] for index in differing])}; {advice}"
    )


def _known(store: Extracted, sequence: int) -> list[tuple[int, int]]:
    """The texts that stand in the store by their index, with their content fingerprints."""
    known: dict[int, int] = {}
    for segment in store.segments:
        positions = np.arange(0, store.rows, sequence)
        positions = positions[np.isin(positions // segment.layout.block, list(segment.commits()))]
        values = segment.read(segment.views.start, positions, ["contents"]).arrays["contents"] if len(positions) else ()
        indices = (store.order[positions] // sequence).tolist()
        known |= dict(zip(indices, map(int, values), strict=True))
    return sorted(known.items())


def _contents(data: Described, index: int) -> int:
    return xxhash.xxh3_64_intdigest(data.probe(index)) & 0xFFFFFFFF
