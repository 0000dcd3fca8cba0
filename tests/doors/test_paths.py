"""Places that users name for stores, from the command line."""

import pytest

from tests.kits import stages
from tests.kits.doors import Door
from tests.kits.stages import Stage, arguments

stage = stages.stage


@pytest.mark.situation(
    "a store inside another store's folder", "both paths, and a place beside it", exit_code=2, left="nothing new"
)
def test_a_store_in_a_store(door: Door, stage: Stage) -> None:
    outer = stage.copy(door.folder / "outer.kd")
    message = door.refused(*arguments(stage.asked("outer.kd/views-00000-00002/inner.kd")))
    assert "inner.kd" in message
    assert str(outer) in message


@pytest.mark.situation(
    "an address with one slash, such as s3:/bucket/x.kd", "how it is written", exit_code=2, left="nothing new"
)
def test_an_address_with_one_slash(door: Door, stage: Stage) -> None:
    assert "s3://" in door.refused(*arguments(stage.asked("s3:/bucket/x.kd")))
    assert "https://" in door.refused("verify", "https:/host/x.kd")
    assert "file://" in door.refused("inspect", "file:/tmp/x.kd")
