"""The arrays of a store as a whole: order, labels and head, compared with their digests as they are read."""

from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.base.arrays import IntArray, values_digest
from kdcache.base.canonical import canonical_json, sha256_hex
from kdcache.base.ranges import SEED_MAX, require_seed
from kdcache.errors import DamagedError, InvalidInputError
from kdcache.places.place import Place
from kdcache.store.array_spec import ArraySpec, plain_array
from kdcache.store.layout import labels_spec, order_spec
from kdcache.store.manifest import Identity, OrderIdentity
from kdcache.store.shards import read_whole

Array = npt.NDArray[Any]

TORN_AT_ONCE = 2**22  # positions that are looked at together


def read_order(folder: Place, identity: Identity) -> IntArray:
    """The order [N] i64: dataset index of each position. Raises DamagedError where its digest is not the manifest's."""
    rows, path = identity.dataset.rows, folder.path("order")
    order = read_whole(folder, order_spec(rows))
    if (digest := values_digest(order)) != identity.order.sha256:
        expected = identity.order.sha256
        raise DamagedError(f"{path} has digest {digest}, the manifest says {expected}; restore it from another copy")
    hits = np.zeros(rows, dtype=bool)
    if int(order.max()) < rows:
        hits[order] = True
    if not hits.all():
        problem = f"{path} holds values up to {int(order.max())} and is no permutation of 0 to {rows - 1}"
        raise DamagedError(f"{problem}; fetch the store again")
    if (position := _torn_sequence(order, identity.dataset.sequence)) is not None:
        problem = f"{path}: position {position} is not the next token of its sequence of {identity.dataset.sequence}"
        raise DamagedError(f"{problem}; fetch the store again")
    return order.astype(np.int64)


def _torn_sequence(order: Array, sequence: int) -> int | None:
    """The first position p that does not hold token p mod S of a sequence of S tokens; None where all do."""
    if sequence == 1:
        return None
    texts = order.reshape(-1, sequence)
    step = max(1, TORN_AT_ONCE // sequence)
    for start in range(0, len(texts), step):
        some = texts[start : start + step].astype(np.int64)
        torn = np.flatnonzero(some != some[:, :1] // sequence * sequence + np.arange(sequence))
        if len(torn):
            return start * sequence + int(torn[0])
    return None


def read_labels(folder: Place, identity: Identity, order: IntArray) -> IntArray:
    """Hard labels [N] i64 by position, -1 for none. Raises DamagedError where their digest is not the manifest's."""
    path, classes = folder.path("labels"), identity.teacher.label_classes
    labels = read_whole(folder, labels_spec(identity.dataset.rows))
    by_index = np.empty_like(labels)
    by_index[order] = labels
    if values_digest(by_index) != identity.dataset.labels:
        raise DamagedError(f"{path} are not the labels of the manifest's data set; restore it from another copy")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < -1 or highest >= classes:
        problem = f"{path} holds {lowest} to {highest}, allowed are -1 to {classes - 1}"
        raise DamagedError(f"{problem}; fetch the store again")
    return labels.astype(np.int64)


def labels_between(folder: Place, identity: Identity, start: int, stop: int) -> IntArray:
    """Hard labels [stop - start] i64 of positions start:stop, -1 for none, from the chunks that hold them. No digest is
    compared: it is for workers, once another process has checked all labels. Raises DamagedError."""
    labels = read_whole(folder, labels_spec(identity.dataset.rows), start=start, stop=stop)
    return labels.astype(np.int64)


def head_specs(identity: Identity) -> list[ArraySpec]:
    """The two arrays of the teacher's classifier: weight, then bias."""
    classes, width = identity.teacher.classes, identity.encoding.head
    return [plain_array("head/weight", (classes, width), "float32"), plain_array("head/bias", (classes,), "float32")]


def read_head(folder: Place, identity: Identity) -> dict[str, Array]:
    """The teacher's classifier, weight [C, D] and bias [C] f32."""
    return {spec.path.removeprefix("head/"): read_whole(folder, spec) for spec in head_specs(identity)}


def head_digest(head: dict[str, Array]) -> str:
    """The digest by which a seal names the head."""
    return sha256_hex(canonical_json({name: values_digest(values) for name, values in head.items()}))


def check_order(order: Array, labels: Array, identity: Identity) -> None:
    """Raises InvalidInputError where the order or the labels of a new store are not one entry a sample."""
    rows = identity.dataset.rows
    if len(order) != rows or len(labels) != rows:
        raise InvalidInputError(
            f"order has {len(order)} and labels {len(labels)} entries, the data set has {rows} rows"
        )
    if not np.array_equal(np.sort(order), np.arange(rows)):
        raise InvalidInputError(f"order is not a permutation of 0 to {rows - 1}: each sample needs one position")
    if (position := _torn_sequence(np.asarray(order), identity.dataset.sequence)) is not None:
        problem = f"order tears a sequence of {identity.dataset.sequence} tokens at position {position}"
        raise InvalidInputError(f"{problem}: it must permute whole sequences, as make_order does")
    digest = values_digest(order.astype(order_spec(rows).dtype))
    assert digest == identity.order.sha256, "the identity was built from another order"


def make_order(rows: int, kind: str, seed: int, *, sequence: int = 1) -> tuple[IntArray, OrderIdentity]:
    """The order [N] i64 and its identity: the data set's own, or a permutation from numpy's frozen generator, of whole
    sequences. Raises InvalidInputError for a seed out of range."""
    require_seed(seed, SEED_MAX)
    texts = np.arange(rows).reshape(-1, sequence)
    if kind != "given":
        texts = texts[np.random.RandomState([seed & 0xFFFFFFFF, seed >> 32]).permutation(len(texts))]
    order = texts.reshape(-1)
    digest = values_digest(order.astype(order_spec(rows).dtype))
    return order.astype(np.int64), OrderIdentity(
        kind="given" if kind == "given" else "shuffled", seed=seed, sha256=digest
    )
