"""The tail sketch gives the logsumexp of the logits outside the top k at any temperature T of 1 or more.

Let b = 1 / T and L(b) = log sum exp(b z) over the n logits z of the tail. The sketch holds L at b = 1, 1/2 and 1/4, and
L(0) is log n. Between these four points L is the cubic through them, kept within three bounds:

- L is convex, as every logsumexp is: it lies under the chord of its interval, and above the other chords, prolonged.
- No tail logit exceeds the last kept one: with that as slope, L lies under the line through (0, log n) and above the
  line through (1, L(1)).

Measured over 4,000 views of Fashion-MNIST and 240 photos under an ImageNet teacher, k = 2 to 50: tail mass at T = 1.5
is off by .0087 at worst, by the bare cubic by .0144.

L is log n plus the cumulant generating function of the tail's logits: its slope at 0 is their mean, its curvature their
variance.
"""

from math import log

from array_api_compat import array_namespace

from kdcache.labels.reduction import SKETCH_TEMPERATURES, Array

SLACK = 2.0**-5  # half a step of a gap: how far the last kept logit may be off
NODES = (0.0, *(1.0 / temperature for temperature in reversed(SKETCH_TEMPERATURES)))


def tail_logsumexp(sketch: Array, last: Array, n: int, temperature: float | Array) -> Array:
    """[B] logsumexp of n tail logits over the temperature T.

    sketch [B, 3]: logsumexp at T = 1, 2, 4. last [B]: the last kept logit. Both are less the top logit. T is a number,
    or an array that broadcasts with `last`. Exact at T = 1, 2, 4, and at every T where n = 1; -inf where n = 0.
    """
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
        between = (b >= NODES[j]) & (b <= NODES[j + 1])
        upper = xp.where(between, xp.minimum(upper, chord), upper)
        lower = xp.where(between, lower, xp.maximum(lower, chord))
    return xp.minimum(xp.maximum(cubic, lower), upper)


def _at_number(sketch: Array, last: Array, n: int, b: float) -> Array:
    """The same at one b for all rows, in fewer operations; at T = 1, 2, 4 the sketch itself, under the bound."""
    xp = array_namespace(sketch)
    upper = log(n) + (last + SLACK) * b
    if b in NODES[1:]:
        return xp.minimum(sketch[..., len(NODES) - 1 - NODES.index(b)], upper)
    values = [log(n), *(sketch[..., j] for j in reversed(range(len(SKETCH_TEMPERATURES))))]
    result = sum(weight * value for weight, value in zip(_lagrange(b), values, strict=True))
    result = xp.maximum(result, values[-1] + (last + SLACK) * (b - 1.0))
    for j in range(len(NODES) - 1):
        chord = _chord(values, j, b)
        if NODES[j] <= b <= NODES[j + 1]:
            upper = xp.minimum(upper, chord)
        else:
            result = xp.maximum(result, chord)
    return xp.minimum(result, upper)


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
    curvature = sum(weight * value for weight, value in zip(_DERIVATIVES[1], _values(sketch, n), strict=True))
    return tail_logit_mean(sketch, last, n), xp.maximum(curvature, xp.zeros_like(last))


def tail_logit_mean(sketch: Array, last: Array, n: int) -> Array:
    """The mean [B] that `tail_moments` gives."""
    if n == 1:
        return sketch[..., 0]
    slope = sum(weight * value for weight, value in zip(_DERIVATIVES[0], _values(sketch, n), strict=True))
    return array_namespace(sketch).minimum(slope, last + SLACK)


def tail_mean(sketch: Array, last: Array, n: int) -> Array:
    """Mean [B] of the n tail logits under their own softmax at T = 1, less the top logit: slope of the cubic at b = 1.

    Kept above the chord from b = 1/2, since L is convex, and at or below `last`. Exact where n = 1, 0 where n = 0.
    Measured on EfficientNet-lite0 and 960 crops of photographs, whose entropy is 3.4 nats on average: an entropy made
    from it is off by .016 nats on average and .20 at worst for k = 10, by .008 and .05 for k = 50. A sketch [B, 1]
    holds T = 1 alone: then all tail classes count as equal, and the entropy is the largest that there can be.
    """
    xp = array_namespace(sketch)
    if n == 0:
        return xp.zeros_like(last)
    if n == 1:
        return sketch[..., 0]
    if sketch.shape[-1] == 1:
        return xp.minimum(sketch[..., 0] - log(n), last + SLACK)
    values = _values(sketch, n)
    slope = sum(weight * value for weight, value in zip(_SLOPE_AT_ONE, values, strict=True))
    return xp.minimum(xp.maximum(slope, 2.0 * (sketch[..., 0] - sketch[..., 1])), last + SLACK)


def _values(sketch: Array, n: int) -> list[Array]:
    """L at NODES."""
    flat = array_namespace(sketch).full_like(sketch[..., 0], log(n))
    return [flat, *(sketch[..., j] for j in reversed(range(len(SKETCH_TEMPERATURES))))]


def _lagrange(b: Array | float) -> list[Array]:
    """Weights of the values at NODES in the polynomial through them, at b."""
    weights = []
    for node in NODES:
        weight = 1.0
        for zero in NODES:
            if zero != node:
                weight = weight * ((b - zero) / (node - zero))
        weights.append(weight)
    return weights


def _derivatives_at_zero() -> tuple[list[float], list[float]]:
    """Weights of the values at NODES in the first and second derivative at 0 of the cubic through them."""
    first, second = [], []
    for node in NODES:
        a, b, c = zeros = [zero for zero in NODES if zero != node]
        scale = 1.0
        for zero in zeros:
            scale *= node - zero
        first.append((a * b + a * c + b * c) / scale)  # (x-a)(x-b)(x-c) = x^3 - (a+b+c) x^2 + (ab+ac+bc) x - abc
        second.append(-2.0 * (a + b + c) / scale)
    return first, second


def _slope_at_one() -> list[float]:
    """Weights of the values at NODES in the derivative at b = 1 of the cubic through them."""
    weights = []
    for node in NODES:
        a, b, c = (zero for zero in NODES if zero != node)
        near = (1.0 - a) * (1.0 - b) + (1.0 - a) * (1.0 - c) + (1.0 - b) * (1.0 - c)
        weights.append(near / ((node - a) * (node - b) * (node - c)))
    return weights


_SLOPE_AT_ONE = _slope_at_one()
_DERIVATIVES = _derivatives_at_zero()
