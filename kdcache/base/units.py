"""Figures in the units that people read: bytes in kB to TB, seconds in minutes and hours."""


def bytes_text(count: float) -> str:
    """Bytes in the unit that fits: `3.2 GB`."""
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if count >= 1000**power:
            return f"{count / 1000**power:.3g} {unit}"
    return f"{count:.0f} bytes"


def seconds_text(seconds: float) -> str:
    """Seconds in the unit that fits: `0.42 s`, `48 s`, `12 min`, `3.5 h`, `2.1 days`."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.{0 if seconds >= 10 * size else 1}f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
