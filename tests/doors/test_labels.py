"""Labels as users' data sets give them, from the command line."""

import pytest

from tests.kits import pictures
from tests.kits.doors import Door

gallery = pictures.gallery


@pytest.mark.situation(
    "plain training with a folder that is not there",
    "the folder, and what it must hold",
    exit_code=2,
    left="nothing new",
)
def test_a_folder_that_is_not_there(door: Door) -> None:
    message = door.refused(
        "train", "run", "--student", "kdcache.networks:convnet", "--data", "folder:nowhere", "--workers", 0
    )
    assert "nowhere" in message
