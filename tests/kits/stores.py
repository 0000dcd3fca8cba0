"""Small stores from dense logits, for tests: an identity, the arrays of a block, a written store.

Shape letters: V views, N positions, C classes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.base.arrays import values_digest
from kdcache.base.view_span import ViewSpan
from kdcache.labels.encoding import Encoding
from kdcache.labels.full import FullEncoding
from kdcache.labels.reduction import centre, reduce_topk
from kdcache.labels.topk import TopKEncoding
from kdcache.store.commits import Commit, Counts
from kdcache.store.manifest import DatasetIdentity, Identity, OrderIdentity, Provenance, TeacherIdentity
from kdcache.store.plan import TransformSpec, ViewPlan, draw_words
from kdcache.store.segment import Segment
from kdcache.store.store import Store
from tests.kits.encoding import encode_full, encode_topk

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """What a store is made from: `order` [N] dataset indices, `labels` [N] by position, `logits` [V, N, C] f32, and the
    positions of samples without an answer."""

    identity: Identity
    order: Array
    labels: Array
    logits: Array
    struck: tuple[int, ...] = ()

    def struck_in(self, segment: Segment, block: int) -> list[int]:
        """The struck positions of a block."""
        start, stop = segment.layout.block_rows(block)
        return [position for position in self.struck if start <= position < stop]


def make_identity(
    order: Array,
    labels_by_index: Array,
    *,
    classes: int,
    encoding: Encoding,
    mix: str = "none",
    masked: Iterable = (),
    sequence: int = 1,
) -> Identity:
    """The identity of a made-up teacher on a made-up data set."""
    return Identity.model_validate(
        {
            "dataset": DatasetIdentity(
                rows=len(order),
                ids="ids",
                labels=values_digest(labels_by_index.astype("i4")),
                probes="probes",
                sequence=sequence,
            ),
            "order": OrderIdentity(kind="given", sha256=values_digest(order.astype("u4"))),
            "views": ViewPlan.model_validate({"transform": TransformSpec(name="crop"), "mix": mix, "seed": 7}),
            "teacher": TeacherIdentity(name="made-up", weights="w", classes=classes, masked_classes=tuple(masked)),
            "encoding": encoding,
        }
    )


def make_case(
    rows: int = 200,
    classes: int = 30,
    k: int | None = 5,
    *,
    views: int = 2,
    seed: int = 0,
    mix: str = "none",
    quantisation: str = "default",
    packing: str = "plain",
    masked: tuple[int, ...] = (),
    features: int = 0,
    head: int = 0,
    sequence: int = 1,
    struck: tuple[int, ...] = (),
    encoding: Encoding | None = None,
) -> Case:
    """Random logits of 3 nats' spread; every tenth sample has no hard label. `k` None is the full encoding; any other
    `encoding` is given whole."""
    rng = np.random.RandomState(seed)
    order = (rng.permutation(rows // sequence)[:, None] * sequence + np.arange(sequence)).reshape(-1)
    labels = rng.randint(0, classes, rows)
    labels[::10] = -1
    record = {"quantisation": quantisation, "features": features, "head": head}
    if encoding is None and k is not None:
        encoding = TopKEncoding.model_validate({**record, "k": k, "packing": packing})
    encoding = encoding or FullEncoding.model_validate(record)
    identity = make_identity(
        order, labels, classes=classes, encoding=encoding, mix=mix, masked=masked, sequence=sequence
    )
    logits = rng.normal(0, 3, (views, rows, classes)).astype(np.float32)
    return Case(identity, order, labels[order], logits, struck)


def real_case(logits_NC: Array, k: int | None) -> Case:
    """Real logits as the two views of half as many positions, with the class of the second best as hard label."""
    logits = logits_NC.reshape(2, -1, logits_NC.shape[1])
    rows = logits.shape[1]
    labels = np.argsort(-logits[0], axis=1)[:, 1]
    order = np.random.RandomState(3).permutation(rows)
    by_index = np.empty_like(labels)
    by_index[order] = labels
    encoding = FullEncoding() if k is None else TopKEncoding(k=k)
    identity = make_identity(order, by_index, classes=logits.shape[2], encoding=encoding)
    return Case(identity, order, labels, logits)


def create_store(path: Path, case: Case, head: dict[str, Array] | None = None) -> Store:
    """A store without segments."""
    return Store.create(
        path, case.identity, order=case.order, labels=case.labels, provenance=Provenance(device="test"), head=head
    )


def pixels_of(views: ViewSpan, positions: Array) -> Array:
    """Made-up pixel fingerprints: a function of view and position, so that a test can foretell them."""
    return (np.array(list(views))[:, None] * 31 + positions[None] * 7).astype(np.uint8)


def block_arrays(store: Store, segment: Segment, block: int, logits: Array) -> dict[str, Array]:
    """All arrays of one block, from `logits` [Vs, N, C] of the segment's views."""
    identity, views = store.identity, segment.views
    positions = np.arange(*segment.layout.block_rows(block))
    part = logits[:, positions]
    labels = np.stack([store.hard_labels(view, positions) for view in views])
    labels = labels if labels.ndim == 3 else labels[..., None]
    masked, encoding, space = identity.teacher.masked_classes, identity.encoding, identity.space
    if encoding.COMPLETE:
        arrays = dict(encode_full(centre(part, masked)).arrays)
    elif encoding.DRAWN:
        words = np.stack([draw_words(identity.plan.seed, store.order[positions], view) for view in views])
        fields = encoding.reduce(part, labels, space) | encoding.draw(part, words, space)
        arrays = dict(encoding.encode(fields, space).arrays)
    else:
        rows = reduce_topk(part, labels, identity.kept, masked)
        arrays = dict(encode_topk(rows, encoding, identity.teacher.classes, masked).arrays)
    arrays["pixels"] = pixels_of(views, positions)
    for number, (name, output) in enumerate(encoding.outputs.items()):
        columns = np.arange(number, number + output.row_bytes // 2) % part.shape[-1]
        values = part[..., columns].astype(np.float16)
        arrays[name] = values.reshape(*values.shape[:2], *output.back)
    if encoding.contents is not None:
        arrays["contents"] = (positions[None] * 2_654_435_761 % 2**32).astype(np.uint32)
    if block == 0 and "canary" in segment.layout.arrays:
        shape = segment.layout.arrays["canary"].shape
        arrays["canary"] = (np.arange(np.prod(shape)) % 251).astype(np.uint8).reshape(shape)
    return arrays


def commit_logits(
    store: Store,
    segment: Segment,
    block: int,
    logits: Array,
    *,
    adopt: bool = False,
    device: str = "test",
    struck: Sequence[int] = (),
) -> Commit | None:
    """Encode and commit one block."""
    arrays = block_arrays(store, segment, block, logits)
    provenance, counts = Provenance(device=device), Counts(labelled=1)
    return segment.commit(block, arrays=arrays, counts=counts, provenance=provenance, adopt=adopt, struck=struck)


def write_views(
    store: Store, start: int, logits: Array, blocks: Iterable[int] | None = None, *, struck: Sequence[int] = ()
) -> Segment:
    """Add the segment of `logits` [Vs, N, C] from view `start` on, and commit all of its blocks or the given ones."""
    segment = store.add_segment(ViewSpan(start, start + len(logits)))
    for block in range(segment.layout.blocks) if blocks is None else blocks:
        positions = range(*segment.layout.block_rows(block))
        strikes = [position for position in struck if position in positions]
        assert commit_logits(store, segment, block, logits, struck=strikes) is not None
    return segment


def write_store(path: Path, case: Case, *, head: dict[str, Array] | None = None) -> Store:
    """A sealed store of all views in one segment, opened for reading."""
    store = create_store(path, case, head)
    write_views(store, 0, case.logits, struck=case.struck)
    store.seal()
    return Store.open(path)


def all_files(root: Path) -> dict[str, bytes]:
    """Every file under a folder, by relative path."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
