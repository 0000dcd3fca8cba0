"""Push and pull against a plain parallel copy of the same files to one S3 server; the first view of a far store."""

import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from obstore.store import S3Store

from kdcache.places.bucket import Bucket
from kdcache.sharing.push_pull import pull, push
from kdcache.sharing.transfer import JOBS
from kdcache.store import read_ahead
from kdcache.store.store import Store
from tests.benchmarks.harness import Bench, Figure, alternate, exact, timed_ratio
from tests.kits.stores import make_case, write_store

BUCKET = "bench"


def measure(bench: Bench) -> Iterator[Figure]:
    rows, views = (700, 2) if bench.quick else (16_384, 10)
    path = bench.scratch / "store.kd"
    write_store(path, make_case(rows, classes=100, k=20, views=views))
    files = {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    size = sum(map(len, files.values()))
    setting = (
        f"{rows:,} rows x {views} views, top 20: {len(files)} files, {size / 1e6:.1f} MB; local moto, {JOBS} at a time"
    )
    number = itertools.count()
    trials = 1 if bench.quick else min(bench.trials, 3)  # moto answers some 200 requests a second
    with moto():
        address = f"s3://{BUCKET}/pushed.kd"
        push(str(path), address)
        times = alternate(
            {
                "push": lambda: push(str(path), f"s3://{BUCKET}/push{next(number)}.kd"),
                "plain": lambda: plain_put(path, list(files), f"plain{next(number)}.kd"),
            },
            trials,
        )
        yield timed_ratio("push by a plain parallel copy", times, "push", "plain", setting=setting)
        times = alternate(
            {
                "pull": lambda: pull(address, str(bench.scratch / f"pull{next(number)}.kd")),
                "plain": lambda: plain_get(list(files), "pushed.kd", bench.scratch / f"get{next(number)}.kd"),
            },
            trials,
        )
        yield timed_ratio(
            "pull by a plain parallel copy", times, "pull", "plain", setting=f"{setting}; pull syncs each file to disk"
        )
        os.environ["KDCACHE_CACHE"] = str(bench.scratch / "cache")
        seconds, fetched = first_view(address, rows)
        yield exact(
            "bytes fetched until the first view is read", fetched / size, "of the store's bytes", setting=setting
        )
        yield exact("time until the first view is read", seconds, "s", setting=setting)


@contextmanager
def moto() -> Iterator[None]:
    """An S3 server in a process of its own, one bucket, and the environment that leads there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = subprocess.DEVNULL
    line = [sys.executable, "-c", "from moto.server import main; main()", "-p", str(port)]
    process = subprocess.Popen(line, stdout=quiet, stderr=quiet)
    given = {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x", "REGION": "us-east-1", "ALLOW_HTTP": "true"}
    os.environ.update({f"AWS_{name}": value for name, value in given.items()})
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
    try:
        make_bucket(port)
        yield
    finally:
        process.terminate()
        process.wait()


def make_bucket(port: int) -> None:
    from http.client import HTTPConnection

    for _ in range(1200):
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("PUT", f"/{BUCKET}")
            assert connection.getresponse().status == 200
            return
        except ConnectionRefusedError:
            time.sleep(0.05)
        finally:
            connection.close()
    raise AssertionError("moto does not start")


def plain_put(path: Path, keys: list[str], prefix: str) -> None:
    client = S3Store(BUCKET, prefix=prefix)
    with ThreadPoolExecutor(JOBS) as threads:
        list(threads.map(lambda key: client.put(key, (path / key).read_bytes()), keys))


def plain_get(keys: list[str], prefix: str, to: Path) -> None:
    client = S3Store(BUCKET, prefix=prefix)

    def one(key: str) -> None:
        (to / key).parent.mkdir(parents=True, exist_ok=True)
        (to / key).write_bytes(client.get(key).bytes())

    with ThreadPoolExecutor(JOBS) as threads:
        list(threads.map(one, keys))


class Counting(Bucket):
    """A bucket that counts what it gives."""

    fetched = 0

    def get(self, key: str, **given: int) -> bytes | None:
        data = super().get(key, **given)
        self.fetched += len(data or b"")
        return data

    def span(self, key: str, first: int, last: int, size: int) -> bytes:
        self.fetched += last - first + 1
        return super().span(key, first, last, size)


def first_view(address: str, rows: int) -> tuple[float, int]:
    """Seconds and bytes from nothing to all rows of view 0, order and labels."""
    bucket = Counting(address)
    began = time.perf_counter()
    store = Store.at(read_ahead.reading(bucket))
    store.read(0, np.arange(rows))
    assert len(store.labels) == rows
    return time.perf_counter() - began, bucket.fetched
