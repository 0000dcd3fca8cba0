"""A value that an object computes when it is first asked for. Threads that ask for the same one wait; others do not.

functools.cached_property holds one lock for all objects of a class on Python 3.11, so a store on a slow server would
hold up every other. From 3.12 on it holds none, so each thread of a reader would fetch the same file.
"""

import os
import threading
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")


class computed_once(Generic[T]):  # noqa: N801  a decorator, as property is
    """A property that is computed once an object, and kept in its `__dict__`. After an error it is computed again."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute, self.__doc__ = compute, compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> T: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        values, lock = instance.__dict__, f"{self._name}, lock of process {os.getpid()}"  # a fork may leave one taken
        try:
            with values.setdefault(lock, threading.RLock()):
                if self._name not in values:
                    values[self._name] = self._compute(instance)
                return values[self._name]
        finally:
            values.pop(lock, None)  # locks cannot be pickled
