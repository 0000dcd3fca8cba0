"""A store as large as one likes whose views are all one picture, and a training on it that tells its peak memory.

    python -m tests.benchmarks.flat_store STORE ROWS VIEWS STEPS

Top-20 of 1,000 classes; fingerprints are those of the picture, so that the loader finds nothing amiss.
"""

import sys
import tempfile
import time
from contextlib import suppress

import numpy as np
import torch

from kdcache.base.arrays import values_digest
from kdcache.base.memory import peak_rss_bytes
from kdcache.base.progress import StopRequest
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InterruptedRunError
from kdcache.labels.reduction import TopK, reduce_topk
from kdcache.labels.topk import TopKEncoding
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.stage import train
from kdcache.store.commits import Counts
from kdcache.store.manifest import Identity, OrderIdentity, Provenance, TeacherIdentity
from kdcache.store.plan import TransformSpec, ViewPlan, mixing_of
from kdcache.store.store import Store
from kdcache.views.data import describe_samples
from kdcache.views.draw import thumbnails
from kdcache.views.fingerprint import fingerprint
from tests.kits.encoding import encode_topk

CLASSES, TOP_K, BATCH = 1_000, 20, 1_000
SPEC = "tests.benchmarks.flat_store:Flat"


class Flat:
    """`rows` times the same picture of 1 x 8 x 8 pixels."""

    def __init__(self, rows: int) -> None:
        self.labels = np.zeros(rows, np.int32)
        self.picture = torch.arange(64, dtype=torch.uint8).reshape(1, 8, 8)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.picture, 0


def write(path: str, rows: int, views: int) -> None:
    """The store, sealed; random answers, the same in every block."""
    data = describe_samples(Flat(rows), SPEC)
    order = np.arange(rows)
    plan, encoding = ViewPlan(transform=TransformSpec(name="none")), TopKEncoding(k=TOP_K, packing="residuals")
    identity = Identity(
        dataset=data.identity(), views=plan,
        order=OrderIdentity(kind="given", sha256=values_digest(order.astype("u4"))),
        teacher=TeacherIdentity(name="none", weights="none", classes=CLASSES), encoding=encoding,
    )  # fmt: skip
    provenance = Provenance(device="cpu")
    store = Store.create(path, identity, order=order, labels=data.labels, provenance=provenance)
    segment = store.add_segment(ViewSpan(0, views))
    block = segment.layout.block
    logits = 3 * torch.randn(views, block, CLASSES, generator=torch.Generator().manual_seed(0))
    answers = encode_topk(_numpy(reduce_topk(logits, torch.zeros(views, block, 1, dtype=torch.int64), TOP_K)), encoding,
                          CLASSES).arrays  # fmt: skip
    for number in range(segment.layout.blocks):
        positions = np.arange(*segment.layout.block_rows(number))
        images = Flat(1).picture.expand(len(positions), 1, 8, 8)
        arrays = {
            name: each[..., : len(positions)] if name in ("gaps", "tail") else each[:, : len(positions)]
            for name, each in answers.items()
        }
        mixing = mixing_of(plan, positions, 0, rows, (8, 8))  # none: the same in every view
        seen = np.array([fingerprint(image, mixing, row) & 0xFF for row, image in enumerate(images)], np.uint8)
        arrays["pixels"] = np.stack([seen] * views)
        if number == 0:
            arrays["canary"] = np.stack([thumbnails(images[:64])] * views)
        segment.commit(number, arrays=arrays, counts=Counts(labelled=views * len(positions)), provenance=provenance)
    store.seal()


def _numpy(kept: TopK) -> TopK:
    return TopK(**{name: value.numpy() for name, value in vars(kept).items()})


def peak_of(path: str, rows: int, views: int, steps: int) -> int:
    """The peak in bytes of a training of `views` epochs, stopped after `steps`."""
    stop = StopRequest()

    def progress(what: str, done: int, total: int) -> None:
        time.sleep(0.1 if done < 5 else 0.0)  # the next view is being read meanwhile
        stop.requested = done >= steps

    with tempfile.TemporaryDirectory() as run:
        settings = TrainSettings(
            run=run, data=SPEC, data_set={"rows": rows}, store=(path,), student="kdcache.networks:convnet",
            student_set={"num_classes": CLASSES, "width": 4}, epochs=views, batch_size=BATCH, workers=0, device="cpu",
        )  # fmt: skip
        with suppress(InterruptedRunError):
            train(settings, progress=progress, stop=stop)
    return peak_rss_bytes()


if __name__ == "__main__":
    folder, *numbers = sys.argv[1:]
    sys.stdout.write(f"{peak_of(folder, *map(int, numbers))}\n")
