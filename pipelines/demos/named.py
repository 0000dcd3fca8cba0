"""The parts of a demo under one name each, with the seconds that they take."""

import time
from collections.abc import Callable
from typing import TypeVar

from kdcache.base.progress import Activity, Progress

T = TypeVar("T")


def with_seconds(work: Callable[[], T]) -> tuple[T, float]:
    """The result of some work, and the seconds that it took."""
    start_time = time.monotonic()
    return work(), time.monotonic() - start_time


def renamed(progress: Progress, name: str) -> Progress:
    """The same progress under one name, and its unit."""

    def under_name(activity: str, count: int, total: int) -> None:
        if total:
            progress(Activity(name, activity.unit if isinstance(activity, Activity) else ""), count, total)

    return under_name
