"""Make the golden stores of format 1: run once for every format number, before its first release, and never again.

    python -m tests.golden.make

The stores are in the repository for ever: every later kdcache must open them and read these very numbers. Never rewrite
them to make a test pass; a change that needs it is a new format number, with stores of its own beside these.

All numbers come from integers, so that no generator and no libm has a say in them. V views, N positions, C classes.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kdcache.base.arrays import values_digest
from kdcache.base.view_span import ViewSpan
from kdcache.labels.encoding import Encoding, Tap
from kdcache.labels.full import FullEncoding
from kdcache.labels.reduction import centre, reduce_topk, tail_sums
from kdcache.labels.sampled import SampledEncoding
from kdcache.labels.topk import TopKEncoding
from kdcache.store.commits import Counts
from kdcache.store.id_sums import id_sums
from kdcache.store.manifest import DatasetIdentity, Identity, OrderIdentity, Provenance, TeacherIdentity
from kdcache.store.plan import TransformSpec, ViewPlan, draw_words
from kdcache.store.segment import Segment
from kdcache.store.store import Store
from kdcache.views.fingerprint import token_fingerprints
from tests.kits.encoding import encode_full, encode_topk

Array = npt.NDArray[Any]

HERE = Path(__file__).parent
ROWS = 70  # a whole block of 64 and a ragged one of 6
CLASSES = 12
K = 4
MASKED = 11
CLASS_MAP = (-1, *range(10, -1, -1), -1)  # of a network of 13 classes: none of them is class 11
STRUCK = (3, 17, 66)  # in the stores of struck rows
SEQUENCE, TOKENS = 8, 72  # in the stores of texts
TOKENIZER = "5a" * 32  # the sha256 of no file, in one of them
SUBCLASSES = 3  # of each of 4 classes, in the store of a teacher with subclasses
GOLDEN = Provenance(device="golden")
DRAWS, DRAW_TEMPERATURE = 7, 2.0
FEATURES, TAPS = 3, (Tap(name="layer1.0.conv2", shape=(2, 3, 2)), Tap(name="norm", shape=(5,)))
POOLED = (
    Tap(name="layer2@2x1", shape=(2, 2, 1)),
    Tap(name="layer2", shape=(2, 2, 3)),
    Tap(name="blocks.3@1x2", shape=(2, 5)),
)


def golden_logits(start: int, stop: int, rows: int = ROWS) -> Array:
    """[V, N, C] f32 of views start:stop: multiples of 1/32 from 0 to 16, with ties and one gap of 40 nats."""
    v, n, c = np.meshgrid(np.arange(start, stop), np.arange(rows), np.arange(CLASSES), indexing="ij")
    logits = ((v * 7919 + n * 10_473 + c * 1299 + n * c * 31) % 512) / 32
    logits[:, 5, 2] = 56.0
    return logits.astype(np.float32)


def golden_log_probs(logits: Array) -> Array:
    """[V, N, C] f32, as near to clamped log-probabilities as multiples of 1/32 come: none is 28 nats below the top."""
    return np.maximum(logits - logits.max(axis=-1, keepdims=True), np.float32(-27.625))


def golden_order() -> Array:
    """[N] dataset index of each position."""
    return (np.arange(ROWS) * 37 + 11) % ROWS


def golden_labels() -> Array:
    """[N] hard labels by dataset index; every tenth sample has none."""
    index = np.arange(ROWS)
    return np.where(index % 10 == 3, -1, index * 5 % CLASSES)


def golden_pixels(start: int, stop: int) -> Array:
    """[V, N] u8."""
    return (np.arange(start, stop)[:, None] * 31 + np.arange(ROWS) * 7).astype(np.uint8)


def golden_class_means(logits: Array) -> Array:
    """[1, C] f32 of block 0: sums of multiples of 1/32, and one division a class."""
    rows = logits.reshape(-1, CLASSES).astype(np.float64)
    sums, counts = tail_sums(rows, reduce_topk(rows, np.full((len(rows), 1), -1), K, (MASKED,)).classes, (MASKED,))
    return np.asarray(sums / np.maximum(counts, 1)).astype(np.float32)[None]


def golden_output(number: int, width: int, start: int, stop: int) -> Array:
    """[V, N, W] f16: multiples of 1/8, other ones for each array's number."""
    v, n, w = np.meshgrid(np.arange(start, stop), np.arange(ROWS), np.arange(width), indexing="ij")
    return (((v * 5 + n * 3 + w * 7 + number * 11) % 64) / 8 - 4).astype(np.float16)


def golden_head() -> dict[str, Array]:
    """Weight [C, D] and bias [C] f32: multiples of 1/4 and of 1/32."""
    c, d = np.meshgrid(np.arange(CLASSES), np.arange(FEATURES), indexing="ij")
    weight, bias = ((c * 7 + d * 11) % 16 - 8) / 4, (np.arange(CLASSES) * 13 % 32) / 32
    return {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}


def golden_answers(start: int, stop: int) -> Array:
    """[V, N, C] f32 logits of the golden head: sums of multiples of 1/32, exact in any order."""
    head = golden_head()
    answers: Array = golden_output(0, FEATURES, start, stop).astype(np.float32) @ head["weight"].T + head["bias"]
    return answers


def golden_contents() -> Array:
    """[N] u32 content fingerprints by position."""
    return (golden_order().astype(np.uint64) * 2_654_435_761 % 2**32).astype(np.uint32)


def golden_texts() -> tuple[Array, Array, Array]:
    """Ids [N], hard labels [N] (the next token's, -1 for the last) by dataset index, and the order [N] of texts."""
    index = np.arange(TOKENS)
    ids = (index * 5 + index // SEQUENCE * 3) % MASKED
    labels = np.where(index % SEQUENCE == SEQUENCE - 1, -1, np.roll(ids, -1))
    texts = (np.arange(TOKENS // SEQUENCE) * 4 + 2) % (TOKENS // SEQUENCE)
    return ids, labels, (texts[:, None] * SEQUENCE + np.arange(SEQUENCE)).reshape(-1)


def _make_sequences(name: str, tokenizer: str = "") -> None:
    """A store of texts, one view, and token fingerprints; `tokenizer` is a sha256."""
    ids, labels, order = golden_texts()
    identity = _identity(TopKEncoding(k=K, packing="residuals"), "none", {}).model_dump()
    identity["dataset"] |= {"rows": TOKENS, "labels": values_digest(labels.astype("i4")), "sequence": SEQUENCE}
    identity["dataset"] |= {"tokenizer": tokenizer} if tokenizer else {}
    identity["order"]["sha256"] = values_digest(order.astype("u4"))
    store = Store.create(
        _absent(name), Identity.model_validate(identity), order=order, labels=labels[order], provenance=GOLDEN
    )
    segment, logits = store.add_segment(ViewSpan(0, 1)), golden_logits(0, 1, TOKENS)
    pixels = np.concatenate([token_fingerprints(text) for text in ids[order].reshape(-1, SEQUENCE)])
    for block in range(segment.layout.blocks):
        positions = np.arange(*segment.layout.block_rows(block))
        arrays = dict(_encode(store, segment, positions, logits[:, positions]))
        segment.commit(block, arrays=arrays | {"pixels": pixels[None, positions]}, counts=Counts(), provenance=GOLDEN)
    store.seal()


def _make_subclasses(name: str) -> None:
    """A store of a teacher whose 12 logits are 3 subclasses of each of 4 classes, which hard labels name."""
    labels = np.where(golden_labels() < 0, -1, golden_labels() % (CLASSES // SUBCLASSES))
    identity = _identity(FullEncoding(), "none", {}).model_dump()
    names = identity["dataset"]["class_names"][: CLASSES // SUBCLASSES]
    identity["dataset"] |= {"labels": values_digest(labels.astype("i4")), "class_names": names}
    identity["teacher"] |= {"masked_classes": (), "subclasses": SUBCLASSES}
    store = Store.create(
        _absent(name),
        Identity.model_validate(identity),
        order=golden_order(),
        labels=labels[golden_order()],
        provenance=GOLDEN,
    )
    _write_views(store, 0, 2, ())
    store.seal()


def _identity(encoding: Encoding, mix: str, teacher: dict[str, Any]) -> Identity:
    names = tuple(f"class {number}" for number in range(CLASSES))
    return Identity(
        dataset=DatasetIdentity(
            rows=ROWS, ids="ids", labels=values_digest(golden_labels().astype("i4")), probes="probes", class_names=names
        ),
        order=OrderIdentity(kind="given", sha256=values_digest(golden_order().astype("u4"))),
        views=ViewPlan.model_validate(
            {"transform": TransformSpec(name="crop", arguments={"size": 32}), "mix": mix, "seed": 11}
        ),
        teacher=TeacherIdentity(name="golden", weights="weights", classes=CLASSES, masked_classes=(MASKED,), **teacher),
        encoding=encoding,
    )


def _encode(store: Store, segment: Segment, positions: Array, logits: Array) -> dict[str, Array]:
    if store.identity.encoding.COMPLETE:
        return encode_full(centre(logits, store.identity.teacher.masked_classes)).arrays
    labels = np.stack([store.hard_labels(view, positions) for view in segment.views])
    labels = labels[..., None] if labels.ndim == 2 else labels
    if store.identity.encoding.DRAWN:
        encoding, space = store.identity.encoding, store.identity.space
        words = np.stack([draw_words(store.identity.plan.seed, store.order[positions], v) for v in segment.views])
        return encoding.encode(
            encoding.reduce(logits, labels, space) | encoding.draw(logits, words, space), space
        ).arrays
    rows = reduce_topk(logits, labels, store.identity.kept, (MASKED,))
    return encode_topk(rows, store.identity.encoding, CLASSES, (MASKED,)).arrays


def golden_ids() -> list[str]:
    """[N] ids by dataset index."""
    return [f"sample {index}" for index in range(ROWS)]


def _write_views(store: Store, start: int, stop: int, struck: tuple[int, ...], *, with_ids: bool = False) -> None:
    segment, logits = store.add_segment(ViewSpan(start, stop)), golden_logits(start, stop)
    if store.identity.encoding.head:
        logits = golden_answers(start, stop)
    if store.identity.teacher.answers == "probs":
        logits = golden_log_probs(logits)
    for block in range(segment.layout.blocks):
        positions = np.arange(*segment.layout.block_rows(block))
        arrays = dict(_encode(store, segment, positions, logits[:, positions]))
        for number, (name, output) in enumerate(store.identity.encoding.outputs.items()):
            values = golden_output(number, output.row_bytes // 2, start, stop)[:, positions]
            arrays[name] = values.reshape(*values.shape[:2], *output.back)
        arrays["pixels"] = golden_pixels(start, stop)[:, positions]
        if store.identity.encoding.contents is not None:
            arrays["contents"] = golden_contents()[None, positions]
        if block == 0:
            arrays["canary"] = np.full(segment.layout.arrays["canary"].shape, 77, dtype=np.uint8)
            if store.identity.encoding.keeps_class_means:
                arrays["class_means"] = golden_class_means(logits[:, positions])
        strikes = [position for position in struck if position in positions]
        sums = id_sums(int(positions[0]), [golden_ids()[index] for index in golden_order()[positions]])
        segment.commit(
            block, arrays=arrays, counts=Counts(labelled=7), provenance=GOLDEN, struck=strikes,
            ids=sums if with_ids else (),
        )  # fmt: skip


def _absent(name: str) -> Path:
    path = HERE / name
    if path.exists():
        raise SystemExit(f"{path} exists: golden stores are made once and never rewritten")
    return path


def _make(
    name: str,
    encoding: Encoding,
    mix: str,
    passes: list[tuple[int, int]],
    struck: tuple[int, ...] = (),
    *,
    with_ids: bool = False,
    **teacher: Any,
) -> None:
    path, labels = _absent(name), golden_labels()[golden_order()]
    identity = _identity(encoding, mix, teacher)
    head = golden_head() if encoding.head else {}
    store = Store.create(path, identity, order=golden_order(), labels=labels, provenance=GOLDEN, head=head)
    for start, stop in passes:
        _write_views(store, start, stop, struck, with_ids=with_ids)
        store.seal()


def _make_missing() -> None:
    """The stores of keys that joined format 1 after the first stores were made."""
    drawn = SampledEncoding(draws=DRAWS, draw_temperature=DRAW_TEMPERATURE)
    _make("format1-sampled.kd", drawn, "none", [(0, 2), (2, 3)])
    _make("format1-mass.kd", TopKEncoding(k=K, tail="mass", packing="residuals"), "mixup", [(0, 2)])
    _make("format1-taps.kd", TopKEncoding(k=1, features=FEATURES, taps=TAPS), "none", [(0, 2)])
    _make("format1-contents.kd", TopKEncoding(k=K, contents="bytes"), "mixup", [(0, 2), (2, 3)])
    pooled = TopKEncoding(k=1, features=FEATURES, head=FEATURES, taps=POOLED)
    _make("format1-pooled-taps.kd", pooled, "none", [(0, 2)])
    _make_subclasses("format1-subclasses.kd")
    _make("format1-ids.kd", TopKEncoding(k=K), "none", [(0, 1)], STRUCK, with_ids=True)
    _make_sequences("format1-tokenizer.kd", TOKENIZER)


if __name__ == "__main__":
    _make("format1.kd", TopKEncoding(k=K), "none", [(0, 2), (2, 3)])
    _make("format1-full.kd", FullEncoding(), "cutmix", [(0, 2)])
    _make("format1-class-means.kd", TopKEncoding(k=K, class_means=True), "mixup", [(0, 2)])
    residuals = TopKEncoding(k=K, class_means=True, packing="residuals")
    _make("format1-residuals.kd", residuals, "mixup", [(0, 2)])
    _make("format1-block-rule.kd", residuals.model_copy(update={"block_rule": 2}), "mixup", [(0, 2)])
    _make("format1-class-map.kd", TopKEncoding(k=K), "none", [(0, 2)], class_map=CLASS_MAP)
    _make("format1-answers.kd", FullEncoding(), "none", [(0, 1)], answers="probs")
    _make("format1-struck.kd", TopKEncoding(k=K, packing="residuals"), "mixup", [(0, 2)], STRUCK)
    _make("format1-struck-full.kd", FullEncoding(), "none", [(0, 1)], STRUCK)
    _make_sequences("format1-sequence.kd")
    _make_missing()
