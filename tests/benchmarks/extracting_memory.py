"""Peak memory of `kdcache extract` by the bound that it states, each extraction in a process of its own.

The bound is what the process took before the loop (data set, teacher, one forward) plus `loop_memory`: views (five
batches' bytes as u8 and two requests), three blocks of reduced rows, eight f32 tensors [batch, classes], four times a
block's arrays, 32 k bytes a row of one view while it is quantised, and 64 MB. None of it grows with the samples.
Workers hold up to three requests each: 16 MB, or 128 MB under mixing, or one view of one row where that is larger.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.benchmarks.harness import Bench, Figure, exact

HERE = "tests.benchmarks.extracting_memory"


def memory(bench: Bench) -> Iterator[Figure]:
    """Peak memory by the bound that was stated, each extraction in a process of its own."""
    rows = 1024
    cases: dict[str, dict[str, Any]] = {
        "k 20 of 1000, 1 view": {"views": 1, "top_k": 20},
        "all of 1000, 10 views": {"views": 10, "encoding": "full"},
    }
    for setting, flags in cases.items():
        found = extracted_apart(bench.scratch / f"memory {len(setting)}", rows=rows, size=64, classes=1000, **flags)
        yield exact(
            "peak memory of extract / its stated bound", found["memory_peak"] / found["memory_bound"], "ratio",
            target=1.0, setting=f"{setting}, {rows} rows", peak=found["memory_peak"], bound=found["memory_bound"],
            worker=found["memory_peak_worker"],
        )  # fmt: skip


def extracted_apart(folder: Path, *, rows: int, size: int, classes: int, **flags: Any) -> dict[str, Any]:
    """The summary of `kdcache extract` in a process of its own, over noise of `size` pixels and a null teacher."""
    line = [
        sys.executable, "-m", "kdcache", "extract", str(folder / "a.kd"), "--json", "--device", "cpu",
        "--data", f"{HERE}:Noise", "--data-set", f"rows={rows}", "--data-set", f"size={size}",
        "--teacher", "tests.benchmarks.extracting:Null", "--teacher-set", f"num_classes={classes}",
        "--min-accuracy", "0", "--no-seal",
    ]  # fmt: skip
    for name, value in flags.items():
        line += ["--" + name.replace("_", "-"), str(value)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Noise:
    """u8 pictures [3, size, size] made from their index."""

    def __init__(self, rows: int = 1024, size: int = 64) -> None:
        self.labels, self.size = np.arange(rows) % 10, size

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        values = np.random.RandomState(index).randint(0, 256, (3, self.size, self.size), dtype=np.uint8)
        return torch.from_numpy(values), int(self.labels[index])
