"""merge refuses stores whose pictures no run could replay together."""

from pathlib import Path

import pytest

from kdcache.errors import InvalidInputError
from kdcache.sharing.merge import merge_stores
from kdcache.store.manifest import Provenance
from kdcache.store.store import Store
from tests.kits.merge import case_of, part


def test_pictures_of_two_decoders_do_not_join(tmp_path: Path) -> None:
    case, stores = case_of(), []
    for number, decoder in enumerate(("Pillow 13.0.0", "torchvision 0.29.2")):
        given, path = Provenance(device="test", decoder=decoder), tmp_path / f"{number}.kd"
        Store.create(path, case.identity, order=case.order, labels=case.labels, provenance=given)
        stores.append(part(path, case, [number]))
    with pytest.raises(InvalidInputError, match=r"0.kd by Pillow and .*1.kd by torchvision"):
        merge_stores(stores, str(tmp_path / "out.kd"))
    assert not (tmp_path / "out.kd").exists()
