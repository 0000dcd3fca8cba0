"""The libraries that stand beside a store, each used as its own documentation has it, on one thread where it can be
told so."""

import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tests.benchmarks.library import Array, Arrays, Library, records_of

CHECKED = 256  # rows that are compared with what was written
CHUNK, CHUNKS_OF_A_SHARD, GROUP, SLICE = 1024, 64, 4096, 4096  # rows; a slice is what a scan asks for where it must


class Memmap(Library):
    package = ""
    settings = "packed records"

    def write(self, arrays: Arrays) -> None:
        records_of(arrays).tofile(self.folder / "rows.bin")

    def open(self) -> Any:
        return np.memmap(self.folder / "rows.bin", self.record, "r")

    def gather(self, handle: Any, rows: Array) -> Arrays:
        return self.fields(handle[rows])

    def scan(self, handle: Any) -> None:
        for start in range(0, self.rows, SLICE):
            handle[start : start + SLICE].copy()


class Zarr(Library):
    package = "zarr"
    settings = "defaults, shards of 64 chunks of 1,024 rows"

    def write(self, arrays: Arrays) -> None:
        import zarr

        group, chunk = zarr.open_group(self.folder, mode="w"), min(CHUNK, self.rows)
        for name, array in arrays.items():
            chunks, shards = ((rows, *array.shape[1:]) for rows in (chunk, CHUNKS_OF_A_SHARD * chunk))
            group.create_array(name, data=array, chunks=chunks, shards=shards, **self.options())

    def options(self) -> dict[str, Any]:
        return {}

    def open(self) -> Any:
        import zarr

        group = zarr.open_group(self.folder, mode="r")
        return {name: group[name] for name in self.shapes}

    def gather(self, handle: Any, rows: Array) -> Arrays:
        return {name: array.oindex[rows] for name, array in handle.items()}

    def scan(self, handle: Any) -> None:
        for array in handle.values():
            array[:]


class ZarrBlosc(Zarr):
    settings = "blosc zstd 5, bitshuffle, the same shards"

    def options(self) -> dict[str, Any]:
        from zarr.codecs import BloscCodec

        return {"compressors": BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle")}


class Tensorstore(ZarrBlosc):
    """The files are those of ZarrBlosc."""

    package = "tensorstore"
    settings = "files of zarr with blosc"

    def open(self) -> Any:
        import tensorstore as ts

        context = ts.Context({"data_copy_concurrency": {"limit": 1}})

        def opened(name: str) -> Any:
            place = {"driver": "file", "path": str(self.folder / name)}
            return ts.open({"driver": "zarr3", "kvstore": place}, open=True, read=True, context=context).result()

        return {name: opened(name) for name in self.shapes}

    def gather(self, handle: Any, rows: Array) -> Arrays:
        asked = {name: array[rows].read() for name, array in handle.items()}
        return {name: each.result() for name, each in asked.items()}

    def scan(self, handle: Any) -> None:
        for array in handle.values():
            array.read().result()


class HDF5(Library):
    package = "h5py"
    settings = "shuffle, gzip 4, chunks of 1,024 rows"

    def write(self, arrays: Arrays) -> None:
        import h5py

        with h5py.File(self.folder / "rows.h5", "w") as file:
            for name, array in arrays.items():
                chunks = (min(CHUNK, self.rows), *array.shape[1:])
                file.create_dataset(name, data=array, chunks=chunks, compression="gzip", shuffle=True)

    def open(self) -> Any:
        import h5py

        return h5py.File(self.folder / "rows.h5", "r")

    def gather(self, handle: Any, rows: Array) -> Arrays:
        ascending, place = np.unique(rows, return_inverse=True)  # as h5py wants indices
        return {name: handle[name][ascending][place] for name in self.shapes}

    def scan(self, handle: Any) -> None:
        for name in self.shapes:
            handle[name][:]


class Parquet(Library):
    package = "pyarrow"
    settings = "parquet, zstd, groups of 4,096 rows"

    def write(self, arrays: Arrays) -> None:
        from pyarrow import parquet

        parquet.write_table(table_of(arrays), self.folder / "rows.parquet", compression="zstd", row_group_size=GROUP)

    def open(self) -> Any:
        from pyarrow import parquet

        return parquet.ParquetFile(self.folder / "rows.parquet", memory_map=True)

    def gather(self, handle: Any, rows: Array) -> Arrays:
        groups, place = np.unique(rows // GROUP, return_inverse=True)
        table = handle.read_row_groups(groups.tolist(), use_threads=False)
        found = {}
        for name, shape in self.shapes.items():
            column = table[name].combine_chunks()
            values = np.asarray(column.flatten() if shape else column).reshape(-1, *shape)
            found[name] = values[place * GROUP + rows % GROUP]
        return found

    def scan(self, handle: Any) -> None:
        handle.read(use_threads=False)


def table_of(arrays: Arrays) -> Any:
    """The arrays as columns of a pyarrow table, those of more axes as lists of a fixed size."""
    import pyarrow as pa

    def column(array: Array) -> Any:
        return pa.FixedSizeListArray.from_arrays(pa.array(array.ravel()), array.shape[1])

    return pa.table({name: column(array) if array.ndim > 1 else pa.array(array) for name, array in arrays.items()})


class LMDB(Library):
    package = "lmdb"
    settings = "a record a row"

    opened: ClassVar[dict[Path, Any]] = {}  # a file is opened once in a process

    def write(self, arrays: Arrays) -> None:
        import lmdb

        records = records_of(arrays)
        with lmdb.open(str(self.folder), map_size=1 << 30) as environment, environment.begin(write=True) as transaction:
            for row in range(self.rows):
                transaction.put(row.to_bytes(4, "big"), records[row].tobytes(), append=True)

    def open(self) -> Any:
        import lmdb

        if self.folder in self.opened:
            self.opened.pop(self.folder).close()
        self.opened[self.folder] = lmdb.open(str(self.folder), readonly=True, lock=False)
        return self.folder

    def gather(self, handle: Any, rows: Array) -> Arrays:
        with self.opened[handle].begin(buffers=True) as transaction:
            data = b"".join(transaction.get(row.to_bytes(4, "big")) for row in rows.tolist())
        return self.fields(np.frombuffer(data, self.record))

    def scan(self, handle: Any) -> None:
        with self.opened[handle].begin(buffers=True) as transaction:
            b"".join(value for _, value in transaction.cursor())


class MDS(Library):
    package = "mosaicml-streaming"
    settings = "MDS, zstd, unpacked beside as it is read"
    scanned = 8

    def write(self, arrays: Arrays) -> None:
        from streaming import MDSWriter

        columns = {
            name: f"ndarray:{array.dtype.name}:{array.shape[1]}" for name, array in arrays.items() if array.ndim > 1
        }
        columns |= {name: array.dtype.name for name, array in arrays.items() if array.ndim == 1}
        with MDSWriter(out=str(self.folder), columns=columns, compression="zstd") as writer:
            for row in range(self.rows):
                writer.write({name: array[row] for name, array in arrays.items()})

    def open(self) -> Any:
        from streaming import StreamingDataset
        from streaming.base.util import clean_stale_shared_memory

        clean_stale_shared_memory()
        return StreamingDataset(local=str(self.folder), shuffle=False, batch_size=256)

    def gather(self, handle: Any, rows: Array) -> Arrays:
        samples = [handle[row] for row in rows.tolist()]
        return {name: np.stack([sample[name] for sample in samples]) for name in self.shapes}

    def scan(self, handle: Any) -> None:
        for row in range(0, self.rows, self.scanned):
            handle[row]


class HFDatasets(Library):
    package = "datasets"
    settings = "arrow, mapped"

    def write(self, arrays: Arrays) -> None:
        import datasets

        datasets.disable_progress_bars()
        datasets.Dataset(table_of(arrays)).save_to_disk(str(self.folder))

    def open(self) -> Any:
        import datasets

        return datasets.load_from_disk(str(self.folder)).with_format("numpy")

    def gather(self, handle: Any, rows: Array) -> Arrays:
        return dict(handle[rows])

    def scan(self, handle: Any) -> None:
        for start in range(0, self.rows, SLICE):
            handle[start : start + SLICE]


LIBRARIES: tuple[type[Library], ...] = (Memmap, Zarr, ZarrBlosc, Tensorstore, HDF5, Parquet, LMDB, MDS, HFDatasets)


def write_library(kind: type[Library], arrays: Arrays, scratch: Path) -> tuple[Library, int]:
    """A library in a folder of its own, or in that of the library whose files it reads, and its bytes as written.
    Raises where what it gives back differs."""
    written = ZarrBlosc if kind is Tensorstore else kind
    folder = scratch / written.__name__
    library = kind(folder, arrays)
    if kind is written or not folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        library.write(arrays)
    size = library.bytes_on_disk
    rows = np.random.RandomState(2).permutation(library.rows)[:CHECKED]
    for name, values in library.gather(library.open(), rows).items():
        np.testing.assert_array_equal(values, arrays[name][rows], err_msg=f"{kind.__name__}: {name}")
    return library, size
