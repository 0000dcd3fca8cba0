"""How others lay soft labels out on disk, rebuilt from their published layouts to be measured on the same rows.

Each peer is a folder that is written once and then read in random batches of one view. What a row holds differs: ids
and probabilities (TinyViT, FKD), ids and logits (memmap), or all logits (torchdistill); none holds a tail, a label's
logit or a pixel fingerprint. Values are f16 as in the originals. Libraries are measured as they are, on the integers of
a store: `libraries`. Shape letters: V views, N positions,
K kept classes, C classes, B rows of a batch.
"""

import pickle
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Kept:
    """The rows that every peer writes: `classes` [V, N, K] ids, best first, `logits` [V, N, K] f32 less the top,
    `log_z` [V, N] f32 logsumexp of all logits less the top, `full` [V, N, C] f32."""

    classes: Array
    logits: Array
    log_z: Array
    full: Array

    @property
    def probabilities(self) -> Array:
        """[V, N, K] at T = 1, over all classes."""
        return np.asarray(np.exp(self.logits - self.log_z[..., None]))


class Peer(ABC):
    """One published layout in a folder. `title` names it in tables, `views_written` how many views `write` takes."""

    title: str
    values: str  # what `batch` returns beside the ids: "probabilities", "logits" or "all logits"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def write(self, kept: Kept) -> None:
        """Write all rows; the folder is empty."""

    @abstractmethod
    def batch(self, view: int, positions: Array) -> tuple[Array, Array]:
        """Ids [B, K] and values [B, K] f32 of some rows of a view, read from the files."""

    @property
    def bytes_on_disk(self) -> int:
        """Lengths of all files; a file system rounds each up to its blocks."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


class TinyViT(Peer):
    """A file a view of fixed records, not compressed: i32 seed, i16 ids, f16 probabilities. A sample is a seek and a
    read. The original also writes the keys of all samples once a view; they are left out here."""

    title, values = "TinyViT: seek and read a sample", "probabilities"

    def write(self, kept: Kept) -> None:
        for view, (classes, probabilities) in enumerate(zip(kept.classes, kept.probabilities, strict=True)):
            records = np.empty(len(classes), dtype=self._record(classes.shape[-1]))
            records["seed"] = np.arange(len(classes)) * 7919 + view
            records["ids"], records["values"] = classes, probabilities
            (self.folder / f"view{view}-k{classes.shape[-1]}.bin").write_bytes(records.tobytes())

    def batch(self, view: int, positions: Array) -> tuple[Array, Array]:
        path = next(self.folder.glob(f"view{view}-k*.bin"))
        record = self._record(int(path.stem.rpartition("k")[2]))
        ids, values = [], []
        with path.open("rb") as file:
            for position in positions.tolist():
                file.seek(position * record.itemsize)
                row = np.frombuffer(file.read(record.itemsize), dtype=record)[0]
                ids.append(row["ids"])
                values.append(row["values"])
        return np.stack(ids).astype(np.int64), np.stack(values).astype(np.float32)

    @staticmethod
    def _record(k: int) -> np.dtype[Any]:
        return np.dtype([("seed", "<i4"), ("ids", "<i2", (k,)), ("values", "<f2", (k,))])


class FKD(Peer):
    """A pickle an image, with all of its crops: their boxes and flips, f16 ids, f16 probabilities. The original holds
    500 crops an image; fewer share the pickle's own bytes here."""

    title, values = "FKD: a pickle an image", "probabilities"

    def write(self, kept: Kept) -> None:
        probabilities = kept.probabilities.astype(np.float16)
        rng = np.random.RandomState(0)
        for position in range(kept.classes.shape[1]):
            boxes = rng.uniform(0, 1, (len(kept.classes), 4)).astype(np.float32)
            flips = rng.uniform(size=len(kept.classes)) < 0.5
            ids = kept.classes[:, position].astype(np.float16)
            with (self.folder / f"{position:07d}.pickle").open("wb") as file:
                pickle.dump((boxes, flips, ids, probabilities[:, position]), file, protocol=5)

    def batch(self, view: int, positions: Array) -> tuple[Array, Array]:
        ids, values = [], []
        for position in positions.tolist():
            with (self.folder / f"{position:07d}.pickle").open("rb") as file:
                crops = pickle.load(file)
            ids.append(crops[2][view])
            values.append(crops[3][view])
        return np.stack(ids).astype(np.int64), np.stack(values).astype(np.float32)


class Torchdistill(Peer):
    """A torch.save a sample of all its logits, f32. It knows no views: view 0 alone is written."""

    title, values = "torchdistill: torch.save a sample, all logits", "all logits"

    def write(self, kept: Kept) -> None:
        import torch

        for position, row in enumerate(kept.full[0]):
            torch.save(torch.from_numpy(row.copy()), self.folder / f"{position:07d}.pt")

    def batch(self, view: int, positions: Array) -> tuple[Array, Array]:
        import torch

        assert view == 0
        values = torch.stack([torch.load(self.folder / f"{position:07d}.pt") for position in positions.tolist()])
        ids = np.broadcast_to(np.arange(values.shape[1]), values.shape)
        return ids, values.numpy()


class Memmap(Peer):
    """Records of u16 ids and f16 logits, packed, one array a view, which stays mapped: a gather from memory."""

    title, values = "np.memmap: packed records", "logits"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.mapped: dict[int, Array] = {}

    def write(self, kept: Kept) -> None:
        for view, (classes, logits) in enumerate(zip(kept.classes, kept.logits, strict=True)):
            records = np.empty(len(classes), dtype=self._record(classes.shape[-1]))
            records["ids"], records["values"] = classes, logits
            np.save(self.folder / f"view{view}.npy", records)

    def batch(self, view: int, positions: Array) -> tuple[Array, Array]:
        if view not in self.mapped:
            self.mapped[view] = np.load(self.folder / f"view{view}.npy", mmap_mode="r")
        rows = np.take(self.mapped[view], positions)
        return rows["ids"].astype(np.int64), rows["values"].astype(np.float32)

    @staticmethod
    def _record(k: int) -> np.dtype[Any]:
        return np.dtype([("ids", "<u2", (k,)), ("values", "<f2", (k,))])


PEERS: dict[str, type[Peer]] = {"TinyViT": TinyViT, "FKD": FKD, "torchdistill": Torchdistill, "memmap": Memmap}
