"""A dry run asks the teacher for a few batches, and estimates what extraction costs and keeps. It writes nothing."""

import time
from contextlib import closing
from dataclasses import replace

import numpy as np

from kdcache.base.memory import peak_rss_bytes
from kdcache.base.progress import Progress, silent
from kdcache.base.records import Record
from kdcache.base.view_span import ViewSpan
from kdcache.labels.full import FullEncoding
from kdcache.labels.quantising import decode_logits, decode_tail, quantise_gaps, quantise_tail
from kdcache.labels.reduction import Array, logsumexp, reduce_topk
from kdcache.labels.tail_errors import TailError, tail_errors
from kdcache.labels.topk import TopKEncoding
from kdcache.networks.out_of_memory import naming_memory
from kdcache.pipelines.extract.encoding_choice import chosen_words, stored_encoding
from kdcache.pipelines.extract.fresh_draws import FreshDraws
from kdcache.pipelines.extract.job import Job
from kdcache.pipelines.extract.open_job import open_job
from kdcache.pipelines.extract.own_views import with_own_views
from kdcache.pipelines.extract.passes import spans_to_extract
from kdcache.pipelines.extract.report import clamped_notes
from kdcache.pipelines.extract.sizes import file_count
from kdcache.pipelines.extract.smaller_batches import BEFORE_BLOCKS, memory_words
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.manifest import Identity
from kdcache.store.plan import GROUP
from kdcache.store.segment_layout import segment_layout
from kdcache.store.shards import encode_shard
from kdcache.training.saved_networks import spelled_out
from kdcache.views.workers import draw_requests

CANDIDATES = (1, 5, 10, 20, 50)
ROWS_TO_TRY = 1024
TEMPERATURES = (1.0, 2.0, 4.0)


class KeptByK(Record):
    """Top-k at one k: mean kept mass at T = 1, 2, 4, bytes a row, and the mean KL in nats that quantising adds."""

    k: int
    kept_mass: tuple[float, float, float]
    bytes_a_row: float
    quantisation_kl: float


class Estimate(Record):
    """The estimate that `kdcache extract --dry-run` prints. Sizes and times are extrapolated from `rows_tried` rows,
    compressed as they will be: `output_bytes` are those of features and taps, `label_bytes` of all else. `block`:
    positions of a block. Memory is in bytes, of the main process: its peak so far plus `loop_memory`."""

    rows_tried: int
    rows: int
    encoding: str
    k: int | None
    bytes_a_row: float
    bytes: int
    label_bytes: int
    output_bytes: int
    block: int
    files: int
    rows_a_second: float
    seconds: float
    memory_bound: int
    accuracy_clean: float | None
    by_k: tuple[KeptByK, ...]
    by_tail: tuple[TailError, ...]
    notes: tuple[str, ...] = ()


def estimate(settings: ExtractSettings, *, progress: Progress = silent) -> Estimate:
    """Run about a thousand rows through the job's own loader and teacher, and extrapolate to the whole extraction."""
    *first_spans, last_span = spans_to_extract(settings)
    settings = spelled_out(settings.model_copy(update={"views": last_span}))
    settings, view_notes = with_own_views(settings)
    if first_spans:
        spans = ", ".join(map(str, first_spans))
        view_notes += (f"this is the estimate of views {last_span}; views {spans} lack too, and are not in it",)
    with naming_memory(*BEFORE_BLOCKS), FreshDraws(settings) as fresh:
        job = open_job(settings)
        fresh.begin(job)
        checked = job.check(settings.min_accuracy, progress)
        fresh.require_begin()
    logits, labels, outputs, seconds = _try_rows(job, settings)
    row_count, base_memory = len(labels), peak_rss_bytes()
    layout = segment_layout(job.identity, job.views)
    rows = layout.rows * len(job.views)
    loop_memory = job.extractor(layout).memory
    label_bytes = rows * _bytes_a_row(job.identity, logits, labels, job.views)
    output_bytes = rows * sum(_output_bytes_a_row(job, name, values) for name, values in outputs.items())
    encoding, space = job.identity.encoding, job.identity.space
    candidates = [
        TopKEncoding.chosen(replace(chosen_words(settings), top_k=k), space, like=stored_encoding(settings))
        for k in CANDIDATES
        if k < space.visible and space.subclasses == 1
    ]
    return Estimate(
        rows_tried=row_count,
        rows=rows,
        encoding=encoding.name,
        k=None if encoding.COMPLETE else encoding.kept(space),
        bytes_a_row=(label_bytes + output_bytes) / rows,
        bytes=round(label_bytes + output_bytes),
        label_bytes=round(label_bytes),
        output_bytes=round(output_bytes),
        block=layout.block,
        files=file_count(job.identity, layout),
        rows_a_second=row_count / seconds,
        seconds=rows * seconds / row_count,
        memory_bound=base_memory + loop_memory.total,
        accuracy_clean=checked.accuracy,
        by_k=tuple(_kept_by_k(job.identity, logits, labels, candidate, job.views) for candidate in candidates),
        by_tail=tuple(
            tail_errors(
                logits,
                [candidate.k for candidate in candidates],
                masked=space.masked,
                quantisation=settings.quantisation,
            )
        ),
        notes=(*view_notes, *checked.notes, *_clamped_notes(job.identity, logits, labels)),
    )


def _clamped_notes(identity: Identity, logits: Array, labels: Array) -> tuple[str, ...]:
    """A note where many of the rows tried have a gap too wide for the encoding's integers."""
    fields = identity.encoding.reduce(logits[None], labels[None], identity.space)
    fields |= identity.encoding.draw(logits[None], np.arange(len(logits), dtype=np.uint64)[None], identity.space)
    count = int(identity.encoding.encode(fields, identity.space).clamped.sum())
    return clamped_notes(count, len(logits))


def _try_rows(job: Job, settings: ExtractSettings) -> tuple[Array, Array, dict[str, Array], float]:
    """Dense logits [R, C] of some rows, their labels [R, L], the kept outputs [1, r, ...] of the first few by array,
    and the seconds that drawing and asking took."""
    encoding = FullEncoding(features=job.identity.encoding.features, taps=job.identity.encoding.taps)
    full_job = replace(job, identity=job.identity.model_copy(update={"encoding": encoding}))
    count = min(len(job.views), max(1, ROWS_TO_TRY // min(GROUP, len(job.order))))
    layout = segment_layout(full_job.identity, ViewSpan(job.views.start, job.views.start + count))
    position_count = max(GROUP, ROWS_TO_TRY // count // GROUP * GROUP)  # a block may have 8,192
    layout = replace(layout, rows=min(layout.rows, position_count))
    extractor, blocks = full_job.extractor(layout), range(layout.blocks)
    requests = (request for block in blocks for request in extractor.requests(block))
    logits, labels, outputs = [], [], dict[str, Array]()
    start_time = time.monotonic()
    with closing(draw_requests(job.dataset, requests, settings.workers, settings.worker_start)) as drawn_views:
        for block in blocks:
            with naming_memory(*memory_words("the dry run", job.batch_rows)):
                arrays, _ = extractor.encode(extractor.ask(block, drawn_views))
            logits.append(arrays["logits"].astype(np.float32).reshape(-1, job.identity.teacher.classes))
            start, stop = layout.block_rows(block)
            outputs = outputs or {name: arrays[name][:1] for name in encoding.outputs}
            labels.append(np.tile(job.labels[start:stop], len(layout.views)))
    seconds = time.monotonic() - start_time
    row_labels = np.concatenate(labels)[:, None]
    if job.identity.plan.mix != "none":  # as many columns as mixed rows have labels
        row_labels = np.repeat(row_labels, 2, axis=1)
    return np.concatenate(logits), row_labels, outputs, seconds


def _bytes_a_row(identity: Identity, logits: Array, labels: Array, views: ViewSpan) -> float:
    """Compressed bytes a row over all arrays but features and taps, in shards of the job's block size or of the rows at
    hand if fewer."""
    layout = segment_layout(identity, views)
    count = min(layout.block, len(labels))
    arrays = _encoded(identity, logits[:count], labels[:count])
    fill = np.random.default_rng(0)
    arrays["pixels"] = fill.integers(0, 256, (1, count), dtype=np.uint8)  # fingerprints do not compress
    if identity.encoding.contents is not None:
        rows = -(-count // len(views))  # once for all views
        arrays["contents"] = fill.integers(0, 2**32, (1, rows), dtype=np.uint32)
    total = sum(
        len(encode_shard(replace(layout.arrays[name], shard=data.shape, chunk=data.shape), data))
        for name, data in arrays.items()
    )
    return total / count


def _output_bytes_a_row(job: Job, name: str, values: Array) -> float:
    """Compressed bytes a row of a kept output, from real ones [1, r, ...]."""
    layout = segment_layout(job.identity, job.views)
    values = values[:, : layout.block]
    spec = replace(layout.arrays[name], shard=values.shape, chunk=values.shape)
    return float(len(encode_shard(spec, values)) / values.shape[1])


def _encoded(identity: Identity, logits: Array, labels: Array) -> dict[str, Array]:
    """The arrays [1, R, ...] of rows as a store holds them."""
    fields = identity.encoding.reduce(logits[None], labels[None], identity.space)
    words = np.arange(len(logits), dtype=np.uint64)[None]  # any draws are as long as the store's
    fields |= identity.encoding.draw(logits[None], words, identity.space)
    return dict(identity.encoding.encode(fields, identity.space).arrays)


def _kept_by_k(identity: Identity, logits: Array, labels: Array, encoding: TopKEncoding, views: ViewSpan) -> KeptByK:
    block_rule = identity.encoding.block_rule
    k_identity = identity.model_copy(update={"encoding": encoding.model_copy(update={"block_rule": block_rule})})
    rows = reduce_topk(logits, labels, encoding.k, identity.space.masked)
    head = decode_logits(rows.classes, quantise_gaps(rows.distances, encoding.quantisation)[0], encoding.quantisation)
    tail = decode_tail(quantise_tail(rows.tail))  # packing changes no value
    mass = [1.0 - float(np.exp(_log_parts(-rows.distances, rows.tail, index)[:, -1]).mean()) for index in range(3)]
    p, q = _log_parts(-rows.distances, rows.tail, 0), _log_parts(head, tail, 0)
    kl = float((np.exp(p) * np.where(np.isfinite(p), p - q, 0.0)).sum(axis=-1).mean())
    return KeptByK(
        k=encoding.k,
        kept_mass=(mass[0], mass[1], mass[2]),
        bytes_a_row=_bytes_a_row(k_identity, logits, labels, views),
        quantisation_kl=kl,
    )


def _log_parts(head: Array, tail: Array, index: int) -> Array:
    """Log-probabilities [R, K + 1] of the kept classes and of the tail as a whole; `index`: of the temperature."""
    parts = np.concatenate([head.astype(np.float64) / TEMPERATURES[index], tail[:, index : index + 1]], axis=-1)
    log_parts: Array = parts - logsumexp(parts)[:, None]
    return log_parts
