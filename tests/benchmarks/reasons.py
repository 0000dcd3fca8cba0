"""Why a target is missed or open, as far as it is known: a line for each figure, to stand beneath its table."""

from typing import NamedTuple

from tests.benchmarks.harness import Figure

SHARED = "the median is within the target, but epochs on shared cores spread by more than the 2 % that it allows"
DRAWN = (
    "the median is within the target; workers add what both arms pay alike, 200 us a view of fresh shared memory, and "
    "without workers the ratio is 0.50"
)


class Reason(NamedTuple):
    """A line for figures of this name whose setting has a part; with "" for any setting."""

    figure: str
    setting: str
    text: str


REASONS = (
    Reason(
        "bytes a row, arrays that both hold and our records / zarr with blosc", "shuffled order",
        "a shuffled order takes log2(samples) bits of each sample, up to 2.1 bytes a row of one view, and zarr has "
        "none; it stands once for all views",
    ),
    Reason(
        "batch gather / np.take from a memmap", "batch 256",
        "some 3 us of Python a batch, which name its arrays and positions, come on top of the same `take`",
    ),
    Reason(
        "batch gather / np.take from a memmap", "batch 1024",
        "the same 3 us of Python a batch weigh a quarter as much",
    ),
    Reason(
        "load of a view by kdcache", "",
        "numpy keeps Python's lock while it packs records and turns ranks, so a second thread gains nothing; two "
        "processes that load half each would reach 8 M rows/s",
    ),
    Reason(
        "load of a view by zarrs", "",
        "a CPU second of zarrs decodes 5.4 M rows here, so two cores give 10.7 M at most; kdcache has no part in it",
    ),
    Reason(
        "block shuffle / memmap gather", "",
        "loading a window is most of the time; one thread that reads ahead instead of two takes a fifth less CPU time, "
        "but a load that is waited for takes a quarter longer",
    ),
    Reason("epoch from a top-k store / bare cross-entropy", "JPEG photographs", SHARED),
    Reason("epoch from a top-k store / plain kdcache train", "JPEG photographs", SHARED),
    Reason(
        "extract, one view / bare loop", "EfficientNet-lite0",
        "the median is within the target, and shared cores leave the interval wide",
    ),
    Reason("10 views drawn / 10 bare passes", "decoder pillow", DRAWN),
    Reason("10 views drawn / 10 bare passes", "decoder torchvision", DRAWN),
    Reason(
        "share of drawing in an epoch from a warm view cache", "fashion-mnist",
        "7 us a row of 220: Python finds the row, copies and hashes 784 bytes, 2.5 us of it where caches are warm",
    ),
    Reason(
        "the rest of a step: loop, loader, batch", "",
        "the loop's own calls, the memory of a batch and the checks of finite losses; below 262,144 numbers a batch "
        "takes fresh memory",
    ),
    Reason(
        "8 students side by side from a warm view cache / one that draws", "",
        "eight students' own steps are 2.4 times what one takes with its drawing; no drawing is left in it",
    ),
    Reason(
        "gather of 256 random rows, kdcache, from the files / tensorstore", "",
        "both decode every chunk with a row whole; Python opens, checks and turns each of five files a block, some 40 "
        "us a file, which tensorstore does in C++",
    ),
    Reason(
        "load of a view by kdcache, CPU", "",
        "half of it is blosc, the other half opens, checks, turns and packs; larger blocks have fewer files a row",
    ),
    Reason(
        "KD on top-k / on a dense target", "C 1,000, k 20",
        "the median is within the target; a step is half a millisecond here, and shared cores move it by a quarter",
    ),
    Reason(
        "reverse-kl on top-k / its official form", "C 1,000", "the median is within the target; see brier",
    ),
    Reason("tvd on top-k / its official form", "C 1,000", "see brier"),
    Reason(
        "brier on top-k / its official form", "C 1,000",
        "decoding soft labels is a dozen small operations, .2 to .3 ms a step, that dense logits at hand do not need",
    ),
    Reason(
        "logit-mse on top-k / its official form", "C 1,000",
        "its official form is one subtraction, .14 ms; the same decoding is twice that, though the gradient is its own",
    ),
    Reason("skew-reverse-kl on top-k / its official form", "C 32,000", "the median is within the target by far"),
    Reason("tvd on top-k / its official form", "C 32,000", "the median is within the target by far"),
    Reason(
        "logit-mse on top-k / its official form", "C 32,000",
        "the median is within the target; five rounds on shared cores spread by a third",
    ),
    Reason(
        "epoch from a warm view cache / bare cross-entropy", "JPEGs",
        "the median is within the target, as in three runs before (.61, .68, .66); other work shared the cores",
    ),
    Reason(
        "first block with one Dask worker / imports of torch and torchvision, wall time", "",
        "three interpreters import torch: the command itself (10 s of CPU time, Dask included), and only then, side by "
        "side, the fork server (8) and the one whose forks draw samples again (7); other work shared the two cores",
    ),
    Reason(
        "overhead of a block by Dask / imports of torch and torchvision, wall time", "",
        "the median is within the target; other work shared the two cores. In one run a block took 75 ms of CPU time "
        "by Dask and 73 in one process, but a Dask worker begins no block before its last one is written",
    ),
    Reason(
        "rows a second, two Dask workers / one", "2 cores",
        "not seen on a quiet machine: load was 3.4 to 5.1 on two cores; in a run like these each of two workers had "
        ".42 of a core and, for .8 of the time, waited for one",
    ),
)  # fmt: skip


def reason_of(figure: Figure) -> str | None:
    """The line of a figure that is missed or open; None where nobody wrote one, and for any other figure."""
    if figure.verdict in ("met", "reported"):
        return None
    found = (each.text for each in REASONS if each.figure == figure.name and each.setting in figure.setting)
    return next(found, None)
