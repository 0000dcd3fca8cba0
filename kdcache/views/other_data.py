"""A data set that is not a store's is refused: what was added, removed, changed or renamed since, and the way on."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdcache.base.arrays import IntArray
from kdcache.base.progress import Progress, silent
from kdcache.errors import InvalidInputError, MismatchError
from kdcache.views.data_parts import Described, Extracted, ids_digest, shown_ids
from kdcache.views.known_parts import find_parts, part_indices
from kdcache.views.known_samples import Changes, Flags, changes_between, fingerprints_of, stored_samples
from kdcache.views.other_texts import text_explanation
from kdcache.views.renamed import renamed_samples
from kdcache.views.texts import sequence_of

COMPARED = 100_000  # samples up to which a data set is read to say what changed
OTHERS = "use a store of this data set"
RESTORE = (
    "restore the data set as it was (a file that cannot be decoded may stay: --on-bad-sample strike leaves it without "
    "an answer)"
)
NONE = np.empty(0, np.int64)

Problem = tuple[str, str, str]


def data_words(spec: str, arguments: Mapping[str, Any]) -> str:
    """The flags that name a data set on a command line."""
    values = {name: str(value).lower() if isinstance(value, bool) else value for name, value in arguments.items()}
    return " ".join(
        [f"--data {shlex.quote(spec)}", *(f"--data-set {shlex.quote(f'{name}={v}')}" for name, v in values.items())]
    )


def other_data_error(
    store: Extracted,
    data: Described,
    problems: Sequence[Problem],
    headline: str,
    *,
    advice: str,
    words: str = "",
    progress: Progress = silent,
) -> MismatchError:
    """The error for a data set that is not the store's. `problems` are the fields that differ. `advice`: the next step
    where the data set did not only grow. `words`: see `data_words`; empty where there is no command line."""
    return MismatchError(headline, problems, explanation(store, data, advice, words or "--data DATA", progress))


def new_samples(data: Described, stores: Sequence[Extracted], words: str, progress: Progress = silent) -> IntArray:
    """Indices of the samples of a data set that none of some stores has. Raises MismatchError where the data set does
    not hold all that a store was extracted from, and InvalidInputError where no sample is new."""
    parts, free = find_parts(stores, data, progress)
    for store, part in zip(stores, parts, strict=True):
        if part is None:
            raise part_error(store, data, words, progress, free=free)
    if not free.any():
        raise InvalidInputError(
            f"all {len(data)} samples are those of {', '.join(str(store.folder.root) for store in stores)}: none is new"
        )
    return np.flatnonzero(free)


def part_error(
    store: Extracted, data: Described, words: str, progress: Progress = silent, *, free: Flags
) -> MismatchError | InvalidInputError:
    """The error for a store whose data set is no part of another, or one of which other stores have some: all samples
    but those that are `free` [M]."""
    path = store.folder.root
    if (contents := store.identity.encoding.contents) is not None:
        part = part_indices(store, data, fingerprints_of(data, contents, progress))
        if part is not None and not free[part].all():
            ids = [data.ids[index] for index in part[~free[part]].tolist()]
            return InvalidInputError(
                f"{len(ids)} of the {store.rows} samples of {path} are those of another store too: {shown_ids(ids)}; "
                "stores of parts share none: leave one of them out, or extract it anew with --data-set rows=FILE, "
                "where FILE lists the ids of the others alone"
            )
    rows = [("dataset.rows", str(store.rows), str(len(data)))]
    headline = f"{path} is not of a part of this data set that no other store holds:"
    return MismatchError(
        headline, rows, explanation(store, data, OTHERS, words, progress), ("the store", "the data set")
    )


def explanation(store: Extracted, data: Described, advice: str, words: str, progress: Progress = silent) -> str:
    """What a data set has more, less or otherwise than the store's, as far as its fingerprints tell, and the next
    step."""
    path = store.folder.root
    contents = store.identity.encoding.contents
    if max(store.identity.dataset.sequence, sequence_of(data.samples)) > 1:
        return text_explanation(store, data)
    renamed = f"  {line}\n" if (line := _renamed_line(store, data)) else ""
    if contents is None:
        return f"{renamed}{path} keeps no fingerprints of its samples, so no more can be said of them; {advice}"
    if max(len(data), store.rows) > COMPARED:
        grown = f"; where samples were only added: {_grown(store, words)}" if len(data) > store.rows else ""
        return f"{renamed}more than {COMPARED} samples are not read to say what changed; {advice}{grown}"
    stored, fingerprints = stored_samples(store), fingerprints_of(data, contents, progress)
    if not stored.known.any():
        return f"{path} has no block yet, so nothing can be said of its samples; {advice}"
    if (part := part_indices(store, data, fingerprints)) is not None:
        added = np.setdiff1d(np.arange(len(data)), part)
        return _text(store, data, Changes(added, NONE, NONE, NONE, NONE), advice, words)
    same_ids = ids_digest(data.ids) == store.identity.dataset.ids
    changes = changes_between(stored, data, fingerprints, same_ids=same_ids)
    return _text(store, data, changes, advice, words, unknown=int((~stored.known).sum()))


def _text(store: Extracted, data: Described, changes: Changes, advice: str, words: str, *, unknown: int = 0) -> str:
    def names(indices: Any) -> str:
        return shown_ids([data.ids[index] for index in indices.tolist()])

    if unknown:  # new samples cannot be told from those of blocks that are not there yet
        known = f"of its {store.rows} samples the store knows {store.rows - unknown} so far"
        return f"{known}, of which {len(changes.removed)} are not in the data set; {RESTORE}, or {advice}"
    if len(changes.removed) == store.rows:
        return f"  none of the store's {store.rows} samples is in the data set: it is another one\n{advice}"
    lines = [
        f"{count} {noun}: {text}"
        for count, noun, text in (
            (len(changes.added), "samples are new", names(changes.added)),
            (len(changes.removed), "samples are gone", _gone(store, changes)),
            (len(changes.changed), "samples are others than they were", names(changes.changed)),
            (len(changes.moved), "samples were renamed or moved, and are now", names(changes.moved)),
            (len(changes.relabelled), "samples have another label", names(changes.relabelled)),
        )
        if count
    ]
    if len(changes.removed):
        lines += [note for note in getattr(data, "notes", ()) if "are left out" in note]
    if not lines:
        same = "all samples are the store's by their contents and their order"
        differing = _renamed_line(store, data) or "their ids or the names of classes differ"
        lines = [f"{same}: {differing}, as where files or folders were renamed; give them the names that they had"]
    if changes.only_added and np.array_equal(changes.added, np.arange(store.rows, len(data))):
        lines.append(
            f"the store's are the first {store.rows} of the {len(data)}: was it limited? Then give --data-set "
            f"limit={store.rows} here too"
        )
    way_on = _grown(store, words) if changes.only_added else f"{RESTORE}, or {advice}"
    return "\n".join([*(f"  {line}" for line in lines), way_on])


def _renamed_line(store: Extracted, data: Described) -> str:
    """The samples whose ids are others than the store's, as far as its commits tell; "" where they do not."""
    if len(data) != store.rows or ids_digest(data.ids) == store.identity.dataset.ids:
        return ""
    if (indices := renamed_samples(store, data)) is None:
        return ""
    noun = "sample has another id than it had, which is" if len(indices) == 1 else "samples have other ids, which are"
    return f"{len(indices)} {noun} now {shown_ids([data.ids[index] for index in indices.tolist()])}"


def _gone(store: Extracted, changes: Changes) -> str:
    """The removed samples by class: the store keeps no ids."""
    labels = stored_samples(store).labels[changes.removed]
    names = store.identity.dataset.class_names
    texts = []
    for label in np.unique(labels).tolist():
        name = names[label] if 0 <= label < len(names) else "no label" if label < 0 else f"class {label}"
        texts.append(f"{int((labels == label).sum())} of {name}")
    return ", ".join(texts) + " (the store keeps no ids)"


def _grown(store: Extracted, words: str) -> str:
    path = shlex.quote(str(store.folder.root))
    return (
        "all samples of the store are there as they were. Give the new ones a store of their own, and train on both "
        "(other flags as before):\n"
        f"  kdcache doctor {words} --store {path} --write-new new.txt\n"
        f"  kdcache extract NEW.kd {words} --data-set rows=new.txt\n"
        f"  kdcache train RUN {words} --store {path} --store NEW.kd"
    )
