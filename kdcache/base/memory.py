"""Memory of this process, and of the machine."""

import resource
import sys


def peak_rss_bytes(*, children: bool = False) -> int:
    """Largest resident size of this process so far, in bytes.

    With `children`, that of the largest of its children that have ended, pages that they share with this one counted.
    """
    if not children:
        try:
            with open("/proc/self/status") as file:  # ru_maxrss begins where the parent was: exec keeps it
                return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
        except (OSError, StopIteration):
            pass
    peak = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def resident_bytes() -> int | None:
    """The resident size of this process now, in bytes; None where the system has no /proc."""
    return _entry("/proc/self/status", "VmRSS:")


def available_bytes() -> int | None:
    """The memory that the machine, or this process's container, has left, in bytes; None where neither says."""
    machine, limit, used = _entry("/proc/meminfo", "MemAvailable:"), _number("memory.max"), _number("memory.current")
    left = [value for value in (machine, limit - used if limit is not None and used is not None else None) if value]
    return min(left, default=None)


def _entry(path: str, name: str) -> int | None:
    try:
        with open(path) as file:
            return next(1024 * int(line.split()[1]) for line in file if line.startswith(name))
    except (OSError, StopIteration):
        return None


def _number(name: str) -> int | None:
    """A number of the control group that containers see at the root; None where there is no limit."""
    try:
        with open(f"/sys/fs/cgroup/{name}") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
