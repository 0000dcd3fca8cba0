"""Losses of taps written anew from their papers: numpy, f64, plain loops. None shares code with kdcache.

Shape letters: B rows, C channels, [H, W] of a map, T tokens, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from math import exp, log, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Arrays:
    """All that a loss is given, by name: taps [B, ...] of the student and of each store, and parameters of the term.

    pairs: of each store the names of its taps and the student's. heads: (weight, bias) of each store. other: what one
    objective needs alone.
    """

    student: dict[str, Array]
    teachers: list[dict[str, Array]]
    parameters: dict[str, Array]
    pairs: list[list[tuple[str, str]]]
    shares: list[float]
    other: dict[str, Any]


def over_pairs(arrays: Arrays, loss: Callable[[int, Array, Array], float]) -> float:
    """Sum over stores of a store's share of the sum over its pairs."""
    total, index = 0.0, 0
    for number, pairs in enumerate(arrays.pairs):
        for student, teacher in pairs:
            total += arrays.shares[number] * loss(index, arrays.student[student], arrays.teachers[number][teacher])
            index += 1
    return total


def as_map(values: Array) -> Array:
    """[B, C, H, W] of maps, of tokens as one column, of vectors as one place."""
    if values.ndim == 3:
        return np.stack([row.T for row in values])[:, :, :, None]
    return values if values.ndim == 4 else values[:, :, None, None]


def pool(maps: Array, height: int, width: int) -> Array:
    """The mean over windows from floor(i H / h) to ceil((i + 1) H / h)."""
    rows, columns = maps.shape[2:]
    result = np.zeros((*maps.shape[:2], height, width))
    for i in range(height):
        for j in range(width):
            top, bottom = i * rows // height, -(-(i + 1) * rows // height)
            left, right = j * columns // width, -(-(j + 1) * columns // width)
            result[:, :, i, j] = maps[:, :, top:bottom, left:right].mean(axis=(2, 3))
    return result


def joined(student: Array, teacher: Array) -> tuple[Array, Array]:
    """Both as maps of the smaller size."""
    student, teacher = as_map(student), as_map(teacher)
    size = [min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True)]
    return pool(student, *size), pool(teacher, *size)


def convolved(maps: Array, weight: Array, bias: Array) -> Array:
    """A convolution of any odd kernel, zeros around."""
    rows, _, height, width = maps.shape
    reach = weight.shape[2] // 2
    padded = np.pad(maps, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    result = np.zeros((rows, len(weight), height, width))
    for i in range(height):
        for j in range(width):
            window = padded[:, :, i : i + 2 * reach + 1, j : j + 2 * reach + 1]
            for channel in range(len(weight)):
                result[:, channel, i, j] = (window * weight[channel]).sum(axis=(1, 2, 3)) + bias[channel]
    return result


def mean_square(a: Array, b: Array) -> float:
    return float(((a - b) ** 2).sum() / a.size)


def mean_vectors(values: Array) -> Array:
    return as_map(values).mean(axis=(2, 3))


def hint(arrays: Arrays) -> float:
    def loss(index: int, student: Array, teacher: Array) -> float:
        student, teacher = joined(student, teacher)
        weight, bias = (arrays.parameters[f"projections.{index}.{part}"] for part in ("weight", "bias"))
        return mean_square(convolved(student, weight, bias), teacher)

    return over_pairs(arrays, loss)


def at(arrays: Arrays) -> float:
    power = arrays.other.get("power", 2.0)

    def attention(row: Array) -> list[float]:
        q = [float((abs(row[:, i, j]) ** power).sum()) for i in range(row.shape[1]) for j in range(row.shape[2])]
        return [value / sqrt(sum(x * x for x in q)) for value in q]

    def loss(index: int, student: Array, teacher: Array) -> float:
        student, teacher = joined(student, teacher)
        rows = [(attention(s), attention(t)) for s, t in zip(student, teacher, strict=True)]
        return sum((a - b) ** 2 for s, t in rows for a, b in zip(s, t, strict=True)) / (len(rows) * len(rows[0][0]))

    return over_pairs(arrays, loss)


def sp(arrays: Arrays) -> float:
    def gram(values: Array) -> list[list[float]]:
        rows = [row.reshape(-1) for row in values]
        gram = [[float(a @ b) for b in rows] for a in rows]
        return [[value / sqrt(sum(x * x for x in row)) for value in row] for row in gram]

    def loss(index: int, student: Array, teacher: Array) -> float:
        g_t, g_s = gram(teacher), gram(student)
        count = len(g_t)
        return sum((g_t[i][j] - g_s[i][j]) ** 2 for i in range(count) for j in range(count)) / count**2

    return over_pairs(arrays, loss)


def huber(a: float, b: float) -> float:
    return 0.5 * (a - b) ** 2 if abs(a - b) <= 1 else abs(a - b) - 0.5


def rkd(arrays: Arrays) -> float:
    distance, angle = arrays.other.get("distance", 25.0), arrays.other.get("angle", 50.0)

    def distances(rows: Array) -> list[list[float]]:
        plain = [[sqrt(float(((a - b) ** 2).sum())) for b in rows] for a in rows]
        positive = [value for row in plain for value in row if value > 0]
        return [[value / (sum(positive) / len(positive)) for value in row] for row in plain]

    def cosine(rows: Array, i: int, j: int, k: int) -> float:
        a, b = rows[i] - rows[j], rows[k] - rows[j]
        lengths = sqrt(float(a @ a)) * sqrt(float(b @ b))
        return float(a @ b) / lengths if lengths else 0.0

    def loss(index: int, student: Array, teacher: Array) -> float:
        student, teacher = mean_vectors(student), mean_vectors(teacher)
        d_s, d_t, count = distances(student), distances(teacher), range(len(student))
        l_d = sum(huber(d_s[i][j], d_t[i][j]) for i in count for j in count) / len(student) ** 2
        triplets = [(i, j, k) for i in count for j in count for k in count]
        l_a = sum(huber(cosine(student, *one), cosine(teacher, *one)) for one in triplets) / len(student) ** 3
        return float(distance * l_d + angle * l_a)

    return over_pairs(arrays, loss)


def pkt(arrays: Arrays) -> float:
    def neighbours(rows: Array) -> list[list[float]]:
        """By row j the probability of i; 0 for j itself."""
        result = []
        for j, a in enumerate(rows):
            kernel = [
                0.5 * (float(a @ b) / sqrt(float(a @ a) * float(b @ b)) + 1) * (i != j) for i, b in enumerate(rows)
            ]
            result.append([value / sum(kernel) for value in kernel])
        return result

    def loss(index: int, student: Array, teacher: Array) -> float:
        p, q = neighbours(mean_vectors(teacher)), neighbours(mean_vectors(student))
        count = range(len(p))
        parts = [p[j][i] * log((p[j][i] + 1e-7) / (q[j][i] + 1e-7)) for j in count for i in count if i != j]
        return sum(parts) / len(p)

    return over_pairs(arrays, loss)


def unit(vector: Array) -> Array:
    result: Array = vector / sqrt(float(vector @ vector))
    return result


def embedded(arrays: Arrays, whose: str, number: int, row: Array) -> Array:
    weight, bias = (arrays.parameters[f"of_{whose}.{number}.{part}"] for part in ("weight", "bias"))
    return unit(weight @ row + bias)


def crd(arrays: Arrays) -> float:
    """h as a fraction, by exponentials; `other` holds the negatives' features and [B, M] weights, and Z by store."""
    tau = arrays.other.get("tau", 0.07)
    total = 0.0
    for number, ((student_name, teacher_name),) in enumerate(arrays.pairs):
        student, teacher = mean_vectors(arrays.student[student_name]), arrays.teachers[number][teacher_name]
        others = [embedded(arrays, "teacher", number, row) for row in arrays.other["negatives"][number]]
        losses = []
        for row, weights in enumerate(arrays.other["weights"]):
            a, constant = embedded(arrays, "student", number, student[row]), arrays.other["z"][number]

            def h(b: Array, a: Array = a, n: float = max(sum(weights), 1.0), z: float = constant) -> float:
                return exp(float(a @ b) / tau) / (exp(float(a @ b) / tau) + n * z)

            loss = -log(h(embedded(arrays, "teacher", number, teacher[row])))
            losses.append(loss - sum(w * log(1 - h(b)) for w, b in zip(weights, others, strict=True) if w))
        total += arrays.shares[number] * sum(losses) / len(losses)
    return total


def srrl(arrays: Arrays) -> float:
    def loss(index: int, student: Array, teacher: Array) -> float:
        weight, bias = (arrays.parameters[f"connectors.{index}.{part}"] for part in ("weight", "bias"))
        head, offset = arrays.other["heads"][index]
        connected = np.stack([weight @ row + bias for row in mean_vectors(student)])
        seen = [c for c in range(len(head)) if c not in arrays.other["masked"]]
        logits = [
            np.array([[head[c] @ row + offset[c] for c in seen] for row in rows]) for rows in (connected, teacher)
        ]
        feature, regression = arrays.other.get("feature", 1.0), arrays.other.get("regression", 1.0)
        return float(feature * mean_square(connected, teacher) + regression * mean_square(*logits))

    return over_pairs(arrays, loss)


def simkd(arrays: Arrays) -> float:
    (((_, teacher),),) = arrays.pairs
    return mean_square(*joined(arrays.student["projector"], arrays.teachers[0][teacher]))


def mgd(arrays: Arrays) -> float:
    def loss(index: int, student: Array, teacher: Array) -> float:
        student, teacher = joined(student, teacher)
        aligned = convolved(student, *(arrays.parameters[f"aligners.{index}.{part}"] for part in ("weight", "bias")))
        hidden = aligned * arrays.other["masks"][index]
        for layer in (0, 2):
            names = [f"generators.{index}.{layer}.{part}" for part in ("weight", "bias")]
            hidden = convolved(np.maximum(hidden, 0) if layer else hidden, *(arrays.parameters[name] for name in names))
        return mean_square(hidden, teacher)

    return over_pairs(arrays, loss)


def best_matching(student: Array, teacher: Array) -> list[tuple[int, int]]:
    """The matching of channels of the greatest sum of correlations over classes, [classes, channels], by trying all."""

    def correlation(a: Array, b: Array) -> float:
        a, b = a - a.mean(), b - b.mean()
        return float(a @ b) / sqrt(float(a @ a) * float(b @ b))

    channels, others = student.shape[1], teacher.shape[1]
    if channels <= others:
        choices = [list(zip(range(channels), order, strict=True)) for order in permutations(range(others), channels)]
    else:
        choices = [list(zip(order, range(others), strict=True)) for order in permutations(range(channels), others)]
    return max(choices, key=lambda pairs: sum(correlation(student[:, i], teacher[:, j]) for i, j in pairs))


def aligned(arrays: Arrays) -> float:
    def loss(index: int, student: Array, teacher: Array) -> float:
        student, teacher = joined(student, teacher)
        if f"matchings.{index}.map.weight" in arrays.parameters:
            weight, bias = (arrays.parameters[f"matchings.{index}.map.{part}"] for part in ("weight", "bias"))
            return mean_square(convolved(student, weight, bias), teacher)
        pairs = arrays.other["matchings"][index]
        return sum(mean_square(student[:, i], teacher[:, j]) for i, j in pairs) / len(pairs)

    return over_pairs(arrays, loss)


REFERENCES: dict[str, Callable[[Arrays], float]] = {
    "hint": hint, "at": at, "sp": sp, "rkd": rkd, "pkt": pkt, "crd": crd, "srrl": srrl, "simkd": simkd, "mgd": mgd,
    "aligned": aligned,
}  # fmt: skip
