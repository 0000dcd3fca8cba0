"""The import stage: answers that others captured become a sealed store, block by block."""

import hashlib
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdcache.base.arrays import Array
from kdcache.base.progress import Activity, Progress, StopRequest, silent
from kdcache.base.records import Record, validated
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError
from kdcache.labels.encoding import Choice, LabelSpace
from kdcache.labels.encodings import chosen
from kdcache.pipelines.importing.block_rows import BlockRows, encoded_block, require_aligned
from kdcache.pipelines.importing.capture import Capture
from kdcache.pipelines.importing.distillkit import open_distillkit
from kdcache.pipelines.importing.settings import ImportSettings, Layout
from kdcache.pipelines.importing.vllm import open_vllm
from kdcache.store.commits import totals
from kdcache.store.manifest import FILES, Identity, Provenance, TeacherIdentity
from kdcache.store.own_folder import require_writable
from kdcache.store.store import Store
from kdcache.store.whole_arrays import make_order
from kdcache.views.data import Data, text_data
from kdcache.views.own_place import require_own_place
from kdcache.views.texts import NO_VOCABULARY
from kdcache.views.token_rows import texts_of_rows
from kdcache.views.tokenizer_file import open_tokenizer
from kdcache.views.transforms import open_plan

AGAIN = "run the same kdcache import again to go on"
IMPORTED = "imported"  # key in a manifest's provenance
PACKAGES = ("kdcache", "numcodecs", "numpy", "pyarrow", "zarr")
FIRST = 4096  # tokens that are looked at before anything is written, a power of two
PIECE = 2**24  # bytes that are hashed at a time


class ImportSummary(Record):
    """The result of an import. `present` counts those of the `blocks` that lay in the store before. `file_rows` are
    rows of the files, `rows` tokens of the store, of which `labelled` have a label; `accuracy` is the share of these
    whose best class it is, `normalised` counts answers that summed to more than 1. `content_id` is None where no seal
    was written."""

    store: str
    content_id: str | None
    layout: str
    files: int
    file_rows: int
    texts: int
    sequence: int
    rows: int
    labelled: int
    classes: int
    k: int
    blocks: int
    present: int
    bytes: int
    bytes_a_row: float
    clamped: int
    normalised: int
    accuracy: float | None
    notes: tuple[str, ...] = ()


def import_store(
    files: Sequence[str],
    out: str,
    *,
    layout: Layout,
    teacher: str,
    settings: ImportSettings,
    seal: bool = True,
    progress: Progress = silent,
    stop: StopRequest | None = None,
) -> ImportSummary:
    """Write a store of the answers in some files to the folder `out`, or finish what an earlier call began.

    Raises InvalidInputError for files of another layout and for what they do not say, BadLogitsError for rows that are
    no distributions, MismatchError where another store has the place, InterruptedRunError on a stop; committed blocks
    stay.
    """
    stop = stop or StopRequest()
    _require_place(out, files)

    # Files and data set.
    progress(f"reading the tokens of {files[0]}", 0, 0)
    if not teacher.strip():
        raise InvalidInputError("the teacher has no name; name the network that answered by --teacher NAME")
    if settings.compression and layout != "distillkit":
        raise InvalidInputError(f"--compression is of --from distillkit, and --from {layout} was given; leave it out")
    capture = open_vllm(files, progress) if layout == "vllm" else open_distillkit(files, settings.compression)
    vocabulary = open_tokenizer(settings.tokenizer).vocabulary if settings.tokenizer else NO_VOCABULARY
    ids = [str(row) for row in range(len(capture.rows.offsets) - 1)]
    data = text_data(
        texts_of_rows(capture.rows, ids, capture.name, sequence=settings.sequence or 0, vocabulary=vocabulary)
    )
    classes = _vocabulary_size(settings.classes or capture.classes or data.vocabulary.size, capture, files[0])

    # Identity and store.
    teacher_identity = TeacherIdentity(
        name=teacher,
        weights=f"{FILES}{_digest(capture.files, progress, stop)}",
        classes=classes,
        precision=settings.precision,
    )
    identity, order = _identity(teacher_identity, capture, data)
    record = {**capture.record, "files": len(capture.files)}
    provenance = _provenance(layout, data, {IMPORTED: record})
    labels = data.labels[order].astype(np.int64)

    # Checks, before anything is written.
    rows = BlockRows(capture, classes, data.sequence, normalise=settings.normalise)
    require_aligned(rows.of(0, min(max(FIRST, data.sequence), len(data))), data)

    # Blocks.
    store = Store.create(out, identity, order=order, labels=labels, provenance=provenance)
    segment = store.add_segment(ViewSpan(0, 1))
    every_block = range(segment.layout.blocks)
    present = len(every_block) - len(segment.uncommitted(every_block))
    importing = Activity("importing", "tokens")
    for adopt in (False, True):  # blocks that another writer began come at the end
        for block in segment.uncommitted(every_block):
            stop.check(AGAIN)
            start, end = segment.layout.block_rows(block)
            progress(importing, start, len(data))
            arrays, counts = encoded_block(identity, rows.of(start, end), data, start, end)
            segment.commit(block, arrays=arrays, counts=counts, provenance=provenance, adopt=adopt)
    progress(importing, len(data), len(data))

    # Seal and summary.
    ended = Store.open_for_writing(out).snapshot()
    commits = ended.segment_of(0).commits()
    sums = totals(commits)
    normalised = sum(int((commit.counts.model_extra or {}).get("normalised", 0)) for commit in commits.values())
    return ImportSummary(
        store=out,
        content_id=ended.seal().content_id if seal else None,
        layout=layout,
        files=len(capture.files),
        file_rows=len(ids),
        texts=len(data.ids),
        sequence=data.sequence,
        rows=len(data),
        labelled=sums["labelled"],
        classes=classes,
        k=capture.k,
        blocks=len(every_block),
        present=present,
        bytes=sums["bytes"],
        bytes_a_row=sums["bytes"] / len(data),
        clamped=sums["clamped"],
        normalised=normalised,
        accuracy=sums["correct"] / sums["labelled"] if sums["labelled"] else None,
        notes=data.notes,
    )


def _require_place(out: str, files: Sequence[str]) -> None:
    """Raises InvalidInputError for a store's place that is another store's, or among the files."""
    require_writable(out)
    require_own_place(out, "", {})
    for file in files:
        if Path(out).resolve().is_relative_to(Path(file).expanduser().resolve()):
            raise InvalidInputError(f"{out} would lie in {file}, among the captured files; choose a place beside them")


def _vocabulary_size(classes: int, capture: Capture, file: str) -> int:
    """The size of the vocabulary. Raises InvalidInputError where nobody says it, and for tokens that are none of it."""
    largest = int(capture.rows.values.max(initial=0))
    if not classes:
        raise InvalidInputError(
            f"{file} does not say how large the vocabulary is (its largest token is {largest:,}); give the width of "
            "the teacher's logits by --classes N"
        )
    if classes <= max(largest, capture.k - 1):
        row = int(np.searchsorted(capture.rows.offsets, capture.rows.values.argmax(), side="right")) - 1
        raise InvalidInputError(
            f"{file} has token {largest:,} in row {row} and the top {capture.k:,}, and there are {classes:,} classes; "
            "give the width of the teacher's logits by --classes N"
        )
    return classes


def _digest(files: Sequence[Path], progress: Progress, stop: StopRequest) -> str:
    """The sha256 over the bytes of some files, one after the other."""
    digest, done, total = hashlib.sha256(), 0, sum(path.stat().st_size for path in files)
    for path in files:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                stop.check(AGAIN)
                digest.update(piece)
                done += len(piece)
                progress(Activity("hashing the files", "bytes"), done, total)
    return digest.hexdigest()


def _identity(teacher: TeacherIdentity, capture: Capture, data: Data) -> tuple[Identity, Array]:
    """The store's identity, and its order [N]. Nobody tells the teacher's weights: the files stand for them, so that
    two captures are never taken for one."""
    choice = Choice(capture.k, "default", "residuals", shuffled=False, draws=None, draw_temperature=None)
    order, order_identity = make_order(len(data), "given", 0, sequence=data.sequence)
    _, plan = open_plan("none", {}, mix="none", mix_alpha=1.0, seed=0)
    identity = validated(
        Identity,
        "the store's identity",
        dataset=data.identity(),
        order=order_identity,
        views=plan,
        teacher=teacher,
        encoding=chosen("topk", choice, LabelSpace(teacher.classes)).model_copy(
            update={"tail": "mass", "contents": "bytes"}
        ),
    )
    return identity, order


def _provenance(layout: Layout, data: Data, extra: dict[str, Any]) -> Provenance:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    record = {"versions": versions, "device": f"imported from {layout}", "data": data.name, **extra}
    return Provenance.model_validate(record)
