"""Shared fixtures on real data: what an ImageNet teacher says about photographs, and where Fashion-MNIST lies."""

import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import numpy as np
import numpy.typing as npt
import pytest
from filelock import FileLock

from kdcache.labels import encodings
from kdcache.places import http_requests
from tests.kits.bucket import BUCKET, PATIENT, Proxy, environment, s3_server
from tests.kits.cpu_time import CpuTimes
from tests.kits.forks import with_all
from tests.kits.fresh import forked_ones
from tests.kits.photographs import imagenet_logits

CROPS = 240
HERE = Path(__file__).parent
SLOW = {"faults", "processes", "real_data", "benchmarks"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cpu-times", action="store_true", help="list the tests that take the most CPU seconds")
    parser.addoption(
        "--share", default="1/1", help="one of several equal shares of the tests, by their names: 1/2, 2/2"
    )


def pytest_configure(config: pytest.Config) -> None:
    """No test prints as wide or as colourful as the terminal that it was started from."""
    hypothesis.settings.register_profile("kdcache", deadline=None)  # of a test's example: a loaded machine is slow
    hypothesis.settings.load_profile("kdcache")
    os.environ["COLUMNS"] = "100"  # consoles read it when they are made, as a test module is imported
    for name in ("FORCE_COLOR", "NO_COLOR", "PY_COLORS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        os.environ.pop(name, None)
    if config.getoption("--cpu-times"):
        config.pluginmanager.register(CpuTimes())


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The libraries of others are installed where `make ecosystem` asks for their tests."""
    return True if collection_path == HERE / "ecosystem" and config.getoption("markexpr") != "ecosystem" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests are slow, or ask for other people's libraries, by the folder that they lie in; `--share` takes some."""
    for item in items:
        folder = item.path.relative_to(HERE).parts[0]
        if folder in SLOW:
            item.add_marker(pytest.mark.slow)
        if folder == "ecosystem":
            item.add_marker(pytest.mark.ecosystem)
    number, count = map(int, config.getoption("--share").split("/"))
    others = [item for item in items if zlib.crc32(item.nodeid.encode()) % count != number - 1]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if zlib.crc32(item.nodeid.encode()) % count == number - 1]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test touches the user's cache of far stores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDCACHE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _blocks_of_64() -> Iterator[None]:
    """What tests extract has blocks by rule 1: a few hundred rows are several blocks. Tests of rule 2 set it back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encodings, "BLOCK_RULE", 1)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_fork_server() -> Iterator[None]:
    with with_all():
        yield


@pytest.fixture(scope="session", autouse=True)
def _forked_fresh_processes() -> Iterator[None]:
    with forked_ones():
        yield


@pytest.fixture(scope="session")
def s3_server_() -> Iterator[Proxy]:
    with s3_server() as proxy:
        yield proxy


@pytest.fixture
def s3(s3_server_: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A real S3 server behind a proxy that can spoil answers, its credentials in the environment, asked with little
    patience, through an empty cache."""
    for name, value in environment(s3_server_).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(http_requests, "PATIENCE", PATIENT)
    s3_server_.heal()
    yield s3_server_
    s3_server_.heal()


@pytest.fixture
def place(s3: Proxy, tmp_path: Path) -> str:
    """The address of a folder of the bucket that is this test's own."""
    return f"s3://{BUCKET}/{tmp_path.name}/x.kd"


@pytest.fixture(scope="session")
def real_logits(tmp_path_factory: pytest.TempPathFactory) -> npt.NDArray[Any]:
    """[240, 1000] f32 logits of EfficientNet-lite0 with its ImageNet weights, which the test packages carry; made once,
    by the first worker that asks."""
    folder = tmp_path_factory.getbasetemp()
    path = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "real-logits.npy"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            np.save(path, imagenet_logits(CROPS))
    found: npt.NDArray[Any] = np.load(path)
    return found


@pytest.fixture(scope="session")
def fashion_mnist() -> str:
    """The data spec of Fashion-MNIST; without its files a skip, or a failure where they are required."""
    folder = Path(os.environ.get("KDCACHE_FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))
    if not folder.is_dir():
        without(f"no Fashion-MNIST in {folder}: apt install dataset-fashion-mnist, or set KDCACHE_FASHION_MNIST")
    return f"fashion-mnist:{folder}"


@pytest.fixture(scope="session")
def bible() -> str:
    """The path of the program that prints the King James Bible; a skip or a failure without it."""
    program = shutil.which("bible")
    return program or without("there is no program bible: apt install bible-kjv")


def without(reason: str) -> NoReturn:
    """Skip a test whose real data are not here, or fail where they are required."""
    if os.environ.get("KDCACHE_REQUIRE_REALDATA") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
