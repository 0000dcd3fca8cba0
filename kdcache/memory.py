"""How much memory this process has taken at most."""

import sys


def peak_rss_bytes(*, children: bool = False) -> int | None:
    """Largest resident size of this process so far, or of the largest of its ended children, in bytes; None where the
    system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
