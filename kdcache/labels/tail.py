"""The tail sketch between its temperatures: logsumexp of the logits outside the top k at any T of 1 or more.

With b = 1 / T, L(b) = log sum_tail exp(b z) is known at b = 1, 1/2, 1/4 and, since it is log n there, at 0. Between
them it is the cubic through these four points, kept inside what convexity allows (a logsumexp is convex in b): under
the chord of its interval and above the other chords drawn on. No tail logit exceeds the last kept one, z: L is under
log n + b z, and above the line through b = 1 with slope z. Measured over 4,000 views of Fashion-MNIST and 240 photos
under an ImageNet teacher, k = 2 to 50: tail mass at T = 1.5 is off by .0087 at worst, by the bare cubic by .0144.
L is the cumulant generating function of the tail's logits plus log n: its slope at 0 is their mean, its curvature their
variance.
"""

from math import log

from array_api_compat import array_namespace

from kdcache.labels.reduction import SKETCH_TEMPERATURES, Array

SLACK = 2.0**-5  # half a step of a gap: how far the last kept logit may be off
NODES = (0.0, *(1.0 / each for each in reversed(SKETCH_TEMPERATURES)))


def tail_logsumexp(sketch: Array, last: Array, n: int, temperature: float | Array) -> Array:
    """[B] logsumexp of n tail logits over T. `sketch` [B, 3] at T = 1, 2, 4 and `last` [B], the last kept logit, are
    less the top logit; T is a number, or an array that broadcasts with `last`. Exact at T = 1, 2, 4; exact at every T
    where n = 1; -inf where n = 0."""
    xp = array_namespace(sketch)
    if n == 0:
        return xp.full_like(last, -xp.inf)
    if n == 1:
        return sketch[..., 0] / temperature
    if isinstance(temperature, int | float):
        return _at_number(sketch, last, n, 1.0 / temperature)
    b = xp.ones_like(last) / temperature
    values = _values(sketch, n)
    cubic = sum(weight * value for weight, value in zip(_lagrange(b), values, strict=True))
    lower = values[-1] + (last + SLACK) * (b - 1.0)
    upper = log(n) + (last + SLACK) * b
    for j in range(len(NODES) - 1):
        chord = _chord(values, j, b)
        inside = (b >= NODES[j]) & (b <= NODES[j + 1])
        upper = xp.where(inside, xp.minimum(upper, chord), upper)
        lower = xp.where(inside, lower, xp.maximum(lower, chord))
    return xp.minimum(xp.maximum(cubic, lower), upper)


def _at_number(sketch: Array, last: Array, n: int, b: float) -> Array:
    """The same at one b for all rows, in fewer operations; at the sketch's own temperatures what it holds, capped."""
    xp = array_namespace(sketch)
    upper = log(n) + (last + SLACK) * b
    if b in NODES[1:]:
        return xp.minimum(sketch[..., len(NODES) - 1 - NODES.index(b)], upper)
    values = [log(n), *(sketch[..., j] for j in reversed(range(len(SKETCH_TEMPERATURES))))]
    found = sum(weight * value for weight, value in zip(_lagrange(b), values, strict=True))
    found = xp.maximum(found, values[-1] + (last + SLACK) * (b - 1.0))
    for j in range(len(NODES) - 1):
        chord = _chord(values, j, b)
        if NODES[j] <= b <= NODES[j + 1]:
            upper = xp.minimum(upper, chord)
        else:
            found = xp.maximum(found, chord)
    return xp.minimum(found, upper)


def _chord(values: list[Array], j: int, b: Array) -> Array:
    """The line through the nodes j and j + 1, at b."""
    share = (b - NODES[j]) / (NODES[j + 1] - NODES[j])
    return (1.0 - share) * values[j] + share * values[j + 1]


def tail_moments(sketch: Array, last: Array, n: int) -> tuple[Array, Array]:
    """Mean and variance [B] over n >= 1 tail logits, less the top logit: slope and curvature of the cubic at b = 0.

    The mean is kept at or below `last`, the variance at or above 0. Exact where n = 1.
    """
    xp = array_namespace(sketch)
    if n == 1:
        return sketch[..., 0], xp.zeros_like(last)
    values = _values(sketch, n)
    slope, curvature = (sum(w * v for w, v in zip(weights, values, strict=True)) for weights in _DERIVATIVES)
    return xp.minimum(slope, last + SLACK), xp.maximum(curvature, xp.zeros_like(last))


def tail_mean(sketch: Array, last: Array, n: int) -> Array:
    """Mean [B] of the n tail logits under their own softmax at T = 1, less the top logit: slope of the cubic at b = 1.

    Kept above the chord from b = 1/2, since L is convex, and at or below `last`. Exact where n = 1, 0 where n = 0.
    Measured on EfficientNet-lite0 and 960 crops of photographs, whose entropy is 3.4 nats on average: an entropy made
    from it is off by .016 nats on average and .20 at worst for k = 10, by .008 and .05 for k = 50.
    """
    xp = array_namespace(sketch)
    if n == 0:
        return xp.zeros_like(last)
    if n == 1:
        return sketch[..., 0]
    values = _values(sketch, n)
    slope = sum(weight * value for weight, value in zip(_SLOPE_AT_ONE, values, strict=True))
    return xp.minimum(xp.maximum(slope, 2.0 * (sketch[..., 0] - sketch[..., 1])), last + SLACK)


def _values(sketch: Array, n: int) -> list[Array]:
    """L at NODES."""
    flat = array_namespace(sketch).full_like(sketch[..., 0], log(n))
    return [flat, *(sketch[..., j] for j in reversed(range(len(SKETCH_TEMPERATURES))))]


def _lagrange(b: Array | float) -> list[Array]:
    """Weights at b of the polynomial through NODES."""
    weights = []
    for node in NODES:
        weight = 1.0
        for other in NODES:
            if other != node:
                weight = weight * ((b - other) / (node - other))
        weights.append(weight)
    return weights


def _derivatives_at_zero() -> tuple[list[float], list[float]]:
    """Weights of the values at NODES in the first and second derivative at 0 of the cubic through them."""
    first, second = [], []
    for node in NODES:
        others = [other for other in NODES if other != node]
        scale = 1.0
        for other in others:
            scale *= node - other
        a, b, c = others
        first.append((a * b + a * c + b * c) / scale)  # (x-a)(x-b)(x-c) = x^3 - (a+b+c) x^2 + (ab+ac+bc) x - abc
        second.append(-2.0 * (a + b + c) / scale)
    return first, second


def _slope_at_one() -> list[float]:
    """Weights of the values at NODES in the derivative at b = 1 of the cubic through them."""
    weights = []
    for node in NODES:
        a, b, c = (other for other in NODES if other != node)
        near = (1.0 - a) * (1.0 - b) + (1.0 - a) * (1.0 - c) + (1.0 - b) * (1.0 - c)
        weights.append(near / ((node - a) * (node - b) * (node - c)))
    return weights


_SLOPE_AT_ONE = _slope_at_one()
_DERIVATIVES = _derivatives_at_zero()
