"""The benchmarks of `make bench`: a module, the heading of its table, and a few words for those who read the table."""

# module -> heading; each has `measure(bench: Bench) -> Iterator[Figure]`
BENCHMARKS = {
    "sizes": "Bytes a row",
    "libraries": "Beside real libraries, on identical integers",
    "reading": "Reading soft labels",
    "opening": "Opening, files and memory",
    "losses": "Losses",
    "training": "Training",
    "view_cache": "The cache of views",
    "starting": "Starting",
    "extracting": "Extracting",
    "dask": "Dask",
    "taps": "Features and maps",
    "sharing": "Sharing: push, pull, and reading where a store lies",
}

INTRODUCTIONS = {
    "sizes": (
        "The bytes that a store takes on disk for one row, beside other formats. The rows are the answers of "
        "EfficientNet-lite0 (ImageNet weights, 1,000 classes) to 2,048 crops of photographs in 10 views. Every array, "
        "checksum and commit is counted, as in a store of 131,072 samples. The other formats are rebuilt from their "
        "published layouts; they keep no tail, no hard label's logit, no fingerprint and no checksum. KL by quantising "
        "is what rounding to the stored integers loses. Order-0 entropy is what a perfect code of single numbers takes."
    ),
    "libraries": (
        "A store beside libraries that hold the very same integers: one view of 102,400 samples, top 20 of 1,000 "
        "classes, 68 bytes a row before compression. Each library gives its rows back exactly. Times are CPU seconds, "
        "with all files in the page cache."
    ),
    "reading": (
        "Random batches of soft labels from a view that is in memory, beside `np.memmap`, and the load of a whole view "
        "from disk, beside the Rust reader zarrs, which checks and packs nothing. Block shuffle reads a view in "
        "windows that fit a memory budget."
    ),
    "opening": (
        "Opening sealed stores of 10,000 and of 100,000,000 rows, the files of a large store, and the memory that soft "
        "labels take in `kdcache train`. Each target of memory is the bound that the documentation states: two windows "
        "of soft labels, 48 bytes for each row of a window, three chunks a thread, and 16 MB."
    ),
    "losses": (
        "A forward and backward pass of a loss on top-k soft labels, beside the same loss on dense targets [B, C] that "
        "are at hand, on one thread. Memory is the largest sum of live tensors in a pass, in tensors of size [B, C]. "
        "Other objectives stand beside their authors' code on dense teacher logits."
    ),
    "training": (
        "An epoch from a store beside a hand-written loop with plain cross-entropy (`bare`), beside kdcache without a "
        "store (`plain`), and beside a loop that asks the teacher at every step. All use the same samples, transform, "
        "student and optimiser. Times are CPU seconds."
    ),
    "view_cache": (
        "An epoch whose views come from a warm view cache, beside a hand-written loop with plain cross-entropy that "
        "draws them. The student is small, so that the loop around it shows. Times are CPU seconds."
    ),
    "starting": (
        "The start of commands before they work, beside `import torch` and torchvision's transforms, each in a process "
        "of its own."
    ),
    "extracting": (
        "`kdcache extract` beside a bare loop of the same decoding, transform, batches and forward passes that keeps "
        "nothing. Ten views decode each sample once. Memory is held against the bound that `extract` states."
    ),
    "dask": (
        "Extraction on Dask: the time to the first block, the cost of a block, and the gain of a second worker, as "
        "multiples of the time that importing torch and torchvision takes in the same round."
    ),
    "taps": (
        "Steps from a store with features and maps beside a live teacher, and gathering maps beside `np.memmap`."
    ),
    "sharing": (
        "`kdcache push` and `kdcache pull` beside a plain parallel copy of the same files to one local S3 server, and "
        "the bytes and seconds until the first view of a far store is read."
    ),
}  # fmt: skip


def page_of(heading: str) -> str:
    """The name of a group's page: the benchmark's, else the heading in small letters."""
    names = {title: name for name, title in BENCHMARKS.items()}
    return names.get(heading, "_".join(heading.lower().split()))
