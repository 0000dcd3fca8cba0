"""The peak memory of this process."""

import sys


def peak_rss_bytes(*, children: bool = False) -> int | None:
    """Largest resident size of this process so far, in bytes; None where the system does not report it (Windows).

    With `children`, that of the largest of its children that have ended, pages that they share with this one counted.
    """
    if not children:
        try:
            with open("/proc/self/status") as file:  # ru_maxrss begins where the parent was: exec keeps it
                return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
        except (OSError, StopIteration):
            pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
