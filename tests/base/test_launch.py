"""launch, grouping: which process this is and which device is its own, or why that cannot be."""

from datetime import timedelta

import pytest

from kdcache.base.launch import NAMES, Launch, launched
from kdcache.errors import InvalidInputError, KdcacheError
from kdcache.training.process_group import open_ranks, own_device
from tests.kits.ranks import environment, free_port


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def second_of_three(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    for name, value in {**environment(1, 3, free_port()), **changes}.items():
        monkeypatch.setenv(name, value)


def test_a_process_that_nobody_numbered_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched() == Launch(0, 0, 1)
    monkeypatch.setenv("WORLD_SIZE", "8")  # as some schedulers do for what they did not start with torchrun
    assert launched() == Launch(0, 0, 1)
    assert own_device("cpu") == "cpu"
    assert own_device("cuda:1") == "cuda:1"
    with open_ranks("cpu") as ranks:
        assert (ranks.alone, ranks.first) == (True, True)


@pytest.mark.parametrize(
    "changes", [{"RANK": "3"}, {"RANK": "one"}, {"LOCAL_RANK": "-1"}, {"WORLD_SIZE": "0"}], ids=str
)
def test_numbers_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]) -> None:
    second_of_three(monkeypatch, **changes)
    ((name, value),) = changes.items()
    with pytest.raises(
        InvalidInputError, match=f"the environment says .*{name} {value}.*start the processes with torch"
    ):
        launched()


def test_each_process_takes_the_device_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    second_of_three(monkeypatch)
    assert launched() == Launch(1, 1, 3)
    assert own_device("cpu") == "cpu"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert own_device("cuda") == "cuda:1"
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(InvalidInputError, match=r"process 1 of its machine, which has 1 CUDA devices; .* --device cpu"):
        own_device("cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6")  # the scheduler's choice for this process
    assert own_device("cuda") == "cuda:0"
    with pytest.raises(InvalidInputError, match="device cuda:1 was given for 3 processes; each takes one of its own"):
        own_device("cuda:1")
    with pytest.raises(InvalidInputError, match="device mps was given for 3 processes; they can use cuda or cpu"):
        own_device("mps")


def test_processes_that_do_not_find_each_other_say_where(monkeypatch: pytest.MonkeyPatch) -> None:
    second_of_three(monkeypatch)
    monkeypatch.setattr("kdcache.training.process_group.PATIENCE", timedelta(seconds=1))
    said = r"process 1 of 3 did not find the others at 127.0.0.1:\d+: .* same torchrun"
    with pytest.raises(KdcacheError, match=said), open_ranks("cpu"):
        raise AssertionError
