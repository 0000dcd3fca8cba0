"""The tail is packed as residuals: its integers less a prediction from the row's gaps and the number of tail classes.

Packing is lossless whatever the values. Let t1, t2, t4 be the tail's integers (steps of 1/128), `last` the last kept
logit's distance to the top in the same steps (0 where K = 1), and l0 = rint(128 log n) for n tail classes (0 where
n = 0):

    r1 = t1 + last                             against the last kept logit
    r2 = t2 - ((l0 + t1) >> 1)                 against the chord from b = 0 to 1, at b = 1/T = 1/2
    r4 = t4 - ((l0 + t2) >> 1) - (r2 >> 2)     against the chord from b = 0 to 1/2, and a quarter of r2, its curvature

t1, t2, t4 and r1, r2, r4 are integers from -32768 to 32767: each r is taken modulo 2^16. All else is exact, and `>>`
rounds down. Each line adds to its own t only numbers that a reader knows by then: `last` and l0 from the start, t1
before the second line, t2 and r2 before the third. Adding modulo 2^16 is undone by subtracting, so any three integers
come back, -32768 (no tail) and clipped ones too.
"""

from math import log
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

TAIL_STEPS = 128


def pack(tail: Array, last: Array | int, tail_classes: int) -> Array:
    """Residuals [..., 3] i16 of a tail [..., 3] i16. `last` [...] holds any integers; their low 16 bits count."""
    l0 = _log_steps(tail_classes)
    t1, t2, t4 = (tail[..., part].astype(np.int32) for part in range(3))
    r2 = _wrapped(t2 - ((l0 + t1) >> 1))
    r4 = t4 - ((l0 + t2) >> 1) - (r2 >> 2)
    return np.stack([_wrapped(t1 + last), r2, _wrapped(r4)], axis=-1)


def unpack(residuals: Array, last: Array | int, tail_classes: int) -> Array:
    """The tail [..., 3] i16 that `pack` was given."""
    l0 = _log_steps(tail_classes)
    r1, r2, r4 = (residuals[..., part].astype(np.int32) for part in range(3))
    t1 = _wrapped(r1 - last)
    t2 = _wrapped(r2 + ((l0 + t1.astype(np.int32)) >> 1))
    t4 = _wrapped(r4 + ((l0 + t2.astype(np.int32)) >> 1) + (r2 >> 2))
    return np.stack([t1, t2, t4], axis=-1)


def _log_steps(tail_classes: int) -> int:
    return round(TAIL_STEPS * log(tail_classes)) if tail_classes else 0


def _wrapped(values: Array) -> Array:
    return values.astype(np.int16)  # modulo 2^16, as C has it
