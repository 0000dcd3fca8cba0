"""The reasons why targets are missed or open, as far as they are known: one sentence a figure, for docs/performance.md.

How a reason came to be known stands in the docstring of the benchmark. Reasons quote no measured figure, since a later
run would make it false.
"""

from typing import NamedTuple

from tests.benchmarks.harness import Figure

WITHIN = "The median is within the target; "
NOISE = WITHIN + "other work on the shared cores leaves the interval wide."
NOISE_OUTSIDE = "Rounds differ by more than the distance of their median from the target."
ORDER = (
    "The shuffled order takes log2(samples) bits a sample, which zarr does not store; it is kept once for all views."
)
PYTHON = "A batch names its arrays and positions in Python before it calls the same `take`."
DRAWN = WITHIN + "workers copy each view into fresh shared memory, in both arms."
DECODING = "Decoding the soft labels takes a dozen small operations that dense logits at hand do not need."
LOOP = "The calls of the loop, the memory of a batch and the checks for finite losses take this time."


class Reason(NamedTuple):
    """A sentence for figures of this name whose setting has a part; with "" for any setting."""

    figure: str
    setting: str
    text: str


REASONS = (
    Reason("bytes a row, arrays that both hold and our records / zarr with blosc", "shuffled order", ORDER),
    Reason("batch gather / np.take from a memmap", "batch 256", PYTHON),
    Reason("batch gather / np.take from a memmap", "batch 1024", PYTHON),
    Reason(
        "load of a view by kdcache", "",
        "numpy holds Python's lock while rows are packed, so a second thread gains nothing.",
    ),
    Reason(
        "load of a view by zarrs", "",
        "Two cores of this machine cannot decode more with zarrs; kdcache has no part in it.",
    ),
    Reason(
        "block shuffle / memmap gather", "",
        "Loading the windows takes most of the time, and packing rows holds Python's lock.",
    ),
    Reason("epoch from a top-k store / bare cross-entropy", "JPEG photographs", NOISE),
    Reason("epoch from a top-k store / plain kdcache train", "JPEG photographs", NOISE),
    Reason("extract, one view / bare loop", "EfficientNet-lite0", NOISE),
    Reason("10 views drawn / 10 bare passes", "decoder pillow", DRAWN),
    Reason("10 views drawn / 10 bare passes", "decoder torchvision", DRAWN),
    Reason(
        "share of drawing in an epoch from a warm view cache", "fashion-mnist",
        "Finding, copying and hashing a row of 784 bytes takes a few microseconds of Python.",
    ),
    Reason("the rest of a step: loop, loader, batch", "", LOOP),
    Reason(
        "8 students side by side from a warm view cache / one that draws", "",
        "The eight students' own steps take nearly all of the time; no drawing is left in it.",
    ),
    Reason(
        "gather of 256 random rows, kdcache, from the files / tensorstore", "",
        "Both decode every chunk that holds a row; kdcache opens and checks five files a block in Python.",
    ),
    Reason(
        "load of a view by kdcache, CPU", "",
        "Half of it is blosc, the other half opens, checks, turns and packs. The same code met the target on a faster "
        "machine.",
    ),
    Reason("KD on top-k / on a dense target", "C 1,000, k 20", NOISE),
    Reason("reverse-kl on top-k / its official form", "C 1,000", NOISE),
    Reason("tvd on top-k / its official form", "C 1,000", DECODING),
    Reason("brier on top-k / its official form", "C 1,000", DECODING),
    Reason(
        "logit-mse on top-k / its official form", "C 1,000",
        "The official form is one subtraction; decoding the soft labels takes twice its time.",
    ),
    Reason("skew-reverse-kl on top-k / its official form", "C 32,000", NOISE),
    Reason("tvd on top-k / its official form", "C 32,000", NOISE),
    Reason("logit-mse on top-k / its official form", "C 32,000", NOISE),
    Reason("epoch from a warm view cache / bare cross-entropy", "JPEGs", NOISE),
    Reason(
        "first block with one Dask worker / imports of torch and torchvision, wall time", "",
        "Three interpreters import torch, the command first and two beside each other after it, on two shared cores.",
    ),
    Reason("overhead of a block by Dask / imports of torch and torchvision, wall time", "", NOISE),
    Reason(
        "rows a second, two Dask workers / one", "2 cores",
        "Two workers, Dask's scheduler and the command share two cores.",
    ),
    Reason("batch gather / memmap gather", "batch 256", NOISE),
)  # fmt: skip


def reason_of(figure: Figure) -> str | None:
    """The sentence of a figure that is missed or open; None where nobody wrote one, and for any other figure."""
    if figure.verdict in ("met", "reported"):
        return None
    sentences = (each.text for each in REASONS if each.figure == figure.name and each.setting in figure.setting)
    sentence = next(sentences, None)
    return (
        NOISE_OUTSIDE if sentence is not None and sentence.startswith(WITHIN) and not _is_within(figure) else sentence
    )


def _is_within(figure: Figure) -> bool:
    return figure.model_copy(update={"low": figure.measured, "high": figure.measured}).verdict == "met"
