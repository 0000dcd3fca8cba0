"""Faults of a plain web server besides: it may vanish, change a file that is read, show another store's records."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdcache.errors import DamagedError, KdcacheError, StoreError, StoreNotFoundError
from kdcache.places.web import WebFolder
from kdcache.store.store import Store
from tests.kits.damage import FIRST, all_reads, rich_store
from tests.kits.web import Site, serving, uncached

MANIFEST = "kdcache/manifest.json"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("faults")
    rich_store(folder / "rich.kd")
    with serving(folder) as site, uncached():
        yield site


@pytest.mark.parametrize(
    ("key", "kind", "said"),
    [
        ("order/c/0", DamagedError, "order/c/0 is missing; restore it from another copy"),
        ("kdcache/seals/latest", StoreNotFoundError, "the store is not sealed.*; run kdcache seal"),
        (f"kdcache/{FIRST}/commits/000/000001.json", DamagedError, "000001.json is gone; publish the store again"),
    ],
)
def test_what_is_missing_is_named_where_nothing_can_be_listed(
    site: Site, key: str, kind: type[KdcacheError], said: str
) -> None:
    site.spoiling.heal()
    site.spoiling.spoil("404", key)
    with pytest.raises(KdcacheError, match=said) as caught:
        all_reads(f"{site.url}/rich.kd")  # type: ignore[arg-type]
    assert type(caught.value) is kind
    assert f"{site.url}/rich.kd" in str(caught.value)
    site.spoiling.heal()


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with serving(tmp_path) as site:
        url = site.url
        site.shutdown()
        site.server_close()
        with pytest.raises(StoreError, match=f"{url}/store.kd/{MANIFEST} gave no answer .ConnectionRefusedError"):
            Store.open(f"{url}/store.kd")


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(100))
    with serving(tmp_path) as site:
        web = WebFolder(site.url)
        assert web.size("data") == 100
        for size in (99, 101):
            (tmp_path / "data").write_bytes(bytes(size))
            with pytest.raises(DamagedError, match="before it had 100"):
                web.digest("data")


def test_a_small_lie_about_a_manifest_is_refused(site: Site, tmp_path: Path) -> None:
    """A server may answer with another store's records: the seal's identity does not fit them."""
    copy = Path(shutil.copytree(site.folder / "rich.kd", tmp_path / "rich.kd"))
    record = json.loads((copy / MANIFEST).read_bytes())
    record["identity"]["teacher"]["weights"] = "other"
    (copy / MANIFEST).write_text(json.dumps(record))
    with serving(tmp_path) as lying, pytest.raises(DamagedError, match="seals identity"):
        Store.open(f"{lying.url}/rich.kd")
