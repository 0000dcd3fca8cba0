"""Sharpness is the curvature of the student's loss: its Hessian's largest eigenvalue and trace, without the Hessian.

The loss is the mean cross-entropy of hard labels over given rows, in eval mode, as a function of all parameters that
take a gradient. Each product of the Hessian with a vector costs about two backward passes.
"""

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from kdcache.base.ranges import require_seed
from kdcache.base.records import Record
from kdcache.errors import InvalidInputError
from kdcache.measures.facts import Facts
from kdcache.networks.answers import logits_of

ITERATIONS = 20
PROBES = 20
FACTS = {
    "sharpness": Facts(
        "nats per squared parameter",
        "largest eigenvalue of the Hessian of mean -log q_y, by 20 power iterations",
        "standard; Yao et al. 2020",
        ("network", "labels"),
        topk="estimate",
        full="estimate",
    ),
    "hessian_trace": Facts(
        "nats per squared parameter",
        "mean v'Hv over 20 vectors v of random signs",
        "Hutchinson 1989",
        ("network", "labels"),
        topk="estimate",
        full="estimate",
    ),
}
Vector = list[Tensor]


class Sharpness(Record):
    """Sharpness holds the curvature of a network's loss on some rows.

    Attributes:
        largest: The largest eigenvalue of the Hessian H.
        residual: |Hv - largest v| / |largest|: how far the iterations are from an eigenvector v.
        trace: The trace of H.
        trace_error: Its standard error over the probes.
        rows: The number of rows.
    """

    largest: float
    residual: float
    trace: float
    trace_error: float
    rows: int


def sharpness(
    network: nn.Module,
    batches: Sequence[tuple[Tensor, Tensor]],
    *,
    iterations: int = ITERATIONS,
    probes: int = PROBES,
    seed: int = 0,
) -> Sharpness:
    """Sharpness is the curvature of a network's loss: the largest eigenvalue and the trace of the Hessian of the mean
    cross-entropy.

    Args:
        network: The network; its modes come back as they were, its weights and gradients are not touched.
        batches: Images [B, ...] and hard labels [B], which are gone through once a product; 512 rows are usual.
        iterations: The most power iterations.
        probes: Random vectors for the trace.
        seed: The seed of all random vectors, which are drawn on the CPU.

    Raises InvalidInputError without rows, without parameters that take a gradient, and for labels that are missing (-1)
    or a loss that is not finite.

    Examples:
        >>> from kdcache.measures.sharpness import sharpness
        >>> curvature = sharpness(torch.nn.Linear(2, 3), [(features[0], y)], probes=2)
        >>> curvature.rows, curvature.largest > 0
        (2, True)
    """
    require_seed(seed)
    rows = sum(len(labels) for _, labels in batches)
    parameters: Vector = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not rows or not parameters:
        raise InvalidInputError(f"sharpness was asked of {rows} rows and {len(parameters)} parameters; it needs both")
    if missing := sum(int((labels < 0).sum()) for _, labels in batches):
        raise InvalidInputError(f"{missing} of {rows} rows have no hard label; sharpness takes labelled rows")
    hessian = _Hessian(network, parameters, batches, rows)
    generator = torch.Generator().manual_seed(seed)
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    with ExitStack() as stack:
        stack.callback(_put_back, modes)
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))  # the fused kernels have no second derivative
        largest, residual = _largest(hessian, iterations, generator)
        traces = torch.tensor([_probe(hessian, generator) for _ in range(probes)], dtype=torch.float64)
    error = float(traces.std() / probes**0.5) if probes > 1 else float("inf")
    return Sharpness(largest=largest, residual=residual, trace=float(traces.mean()), trace_error=error, rows=rows)


class _Hessian:
    """Products of the Hessian with vectors that have the parameters' shapes."""

    def __init__(
        self, network: nn.Module, parameters: Vector, batches: Sequence[tuple[Tensor, Tensor]], rows: int
    ) -> None:
        self.network, self.parameters, self.batches, self.rows = network, parameters, batches, rows

    def times(self, vector: Vector, shift: float = 0.0) -> Vector:
        """(H - shift) v."""
        product = [-shift * part for part in vector]
        for images, labels in self.batches:
            with torch.enable_grad():
                loss = cross_entropy(logits_of(self.network(images), "network"), labels, reduction="sum") / self.rows
                if not bool(loss.isfinite()):
                    raise InvalidInputError(
                        f"the loss is {loss.item()} on {len(labels)} rows; sharpness needs a number"
                    )
                slopes = torch.autograd.grad(loss, self.parameters, create_graph=True, materialize_grads=True)
                along = torch.stack([(s * v).sum() for s, v in zip(slopes, vector, strict=True)]).sum()
                if not along.requires_grad:  # a loss linear in the parameters
                    continue
                parts = torch.autograd.grad(along, self.parameters, materialize_grads=True)
            product = [total + part for total, part in zip(product, parts, strict=True)]
        return product


def _largest(hessian: _Hessian, iterations: int, generator: torch.Generator) -> tuple[float, float]:
    """The eigenvalue and its residual. Power iterations find the largest magnitude; where that is negative, they are
    run again on H less that value, whose eigenvalues are all above 0."""
    value, residual = _power(hessian, iterations, generator, 0.0)
    if value < 0:
        shift = value
        value, residual = _power(hessian, iterations, generator, shift)
        residual *= value / max(abs(value + shift), 1e-30)
        value += shift
    return value, residual


def _power(hessian: _Hessian, iterations: int, generator: torch.Generator, shift: float) -> tuple[float, float]:
    vector = [torch.randn(p.shape, generator=generator).to(p.device, p.dtype) for p in hessian.parameters]
    vector = _scaled(vector, 1.0 / max(_dot(vector, vector) ** 0.5, 1e-30))
    value, residual = 0.0, 0.0
    for _ in range(iterations):
        product = hessian.times(vector, shift)
        value = _dot(vector, product)
        length = _dot(product, product) ** 0.5
        residual = max(length**2 - value**2, 0.0) ** 0.5 / max(abs(value), 1e-30)
        if not length:
            break
        vector = _scaled(product, 1.0 / length)
    return value, residual


def _probe(hessian: _Hessian, generator: torch.Generator) -> float:
    signs = [
        (torch.randint(0, 2, p.shape, generator=generator) * 2 - 1).to(p.device, p.dtype) for p in hessian.parameters
    ]
    return _dot(signs, hessian.times(signs))


def _dot(a: Vector, b: Vector) -> float:
    return float(sum(float((x.double() * y.double()).sum()) for x, y in zip(a, b, strict=True)))


def _scaled(vector: Vector, factor: float) -> Vector:
    return [part * factor for part in vector]


def _put_back(modes: list[tuple[nn.Module, bool]]) -> None:
    for module, training in modes:
        module.training = training
