"""Values that are computed once an object: threads of one object wait, those of another do not."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kdcache.base.computed_once import computed_once


class Numbered:
    """An object whose value is the number of times that it was computed."""

    def __init__(self) -> None:
        self.times, self.fails = 0, False

    @computed_once
    def value(self) -> int:
        """The number."""
        self.times += 1
        if self.fails:
            raise ValueError("no value")
        return self.times


class Slow:
    """An object whose value comes once it is let go."""

    def __init__(self) -> None:
        self.reached, self.released = threading.Event(), threading.Event()

    @computed_once
    def value(self) -> object:
        self.reached.set()
        assert self.released.wait(60)
        return object()


def test_a_value_is_computed_once() -> None:
    numbered = Numbered()
    assert [numbered.value, numbered.value, numbered.times] == [1, 1, 1]
    assert pickle.loads(pickle.dumps(numbered)).value == 1
    described: Any = Numbered.value
    assert described.__doc__ == "The number."


def test_after_an_error_it_is_computed_again() -> None:
    numbered = Numbered()
    numbered.fails = True
    for _ in range(2):
        with pytest.raises(ValueError, match="no value"):
            _ = numbered.value
    pickle.dumps(numbered)
    numbered.fails = False
    assert numbered.value == 3


def test_threads_of_one_object_wait_and_others_do_not() -> None:
    slow, other = Slow(), Slow()
    other.released.set()
    with ThreadPoolExecutor(4) as threads:
        values = [threads.submit(lambda: slow.value) for _ in range(4)]
        try:
            assert slow.reached.wait(60)
            assert other.value is other.value
            assert not any(value.done() for value in values)
        finally:
            slow.released.set()
        assert len({id(value.result()) for value in values}) == 1
