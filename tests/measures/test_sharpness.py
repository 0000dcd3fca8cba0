"""sharpness: the largest eigenvalue and the trace, against a dense Hessian."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from kdcache.errors import InvalidInputError
from kdcache.measures.sharpness import _Hessian, _largest, sharpness
from kdcache.networks.small import convnet


def tiny(seed: int = 1) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3)).double()


def rows_of(count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, 3, (count,), generator=generator)


def eigenvalues(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """Of the dense Hessian [P, P] of the mean cross-entropy in eval mode, ascending."""
    parameters = dict(network.named_parameters())
    sizes = [parameter.numel() for parameter in parameters.values()]

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parts = [
            part.view_as(parameter) for part, parameter in zip(flat.split(sizes), parameters.values(), strict=True)
        ]
        return cross_entropy(functional_call(network, dict(zip(parameters, parts, strict=True)), (images,)), labels)

    flat = torch.cat([parameter.detach().flatten() for parameter in parameters.values()])
    hessian = torch.autograd.functional.hessian(loss, flat)
    return np.linalg.eigvalsh(np.asarray(hessian))


def test_by_hand() -> None:
    """One input x = 3, two classes, weights 0, so q = (1/2, 1/2) and H = x^2 (diag q - q q') = 9 (1, -1; -1, 1) / 4:
    eigenvalues 9 / 2 and 0, trace 9 / 2."""
    network = nn.Linear(1, 2, bias=False).double()
    nn.init.zeros_(network.weight)
    value = sharpness(network, [(torch.tensor([[3.0]]).double(), torch.tensor([0]))], probes=400)
    assert value.largest == pytest.approx(9 / 2, abs=1e-9)
    assert value.residual == pytest.approx(0.0, abs=1e-6)
    assert abs(value.trace - 9 / 2) < 4 * value.trace_error  # v'Hv is 9 or 0, each half the time
    assert value.rows == 1


def test_a_dense_hessian_agrees() -> None:
    network, (images, labels) = tiny(), rows_of()
    with torch.no_grad():
        network(images)  # running statistics other than 0 and 1
    modes = [module.training for module in network.modules()]
    value = sharpness(network, [(images[:7], labels[:7]), (images[7:], labels[7:])], iterations=200, probes=600)
    assert [module.training for module in network.modules()] == modes
    assert all(parameter.grad is None for parameter in network.parameters())
    dense = eigenvalues(network.eval(), images, labels)
    assert value.largest == pytest.approx(dense[-1], rel=1e-6)
    assert value.residual < 1e-3
    assert abs(value.trace - dense.sum()) < 4 * value.trace_error
    assert value.trace_error < 0.1 * dense.sum()


def test_twenty_iterations_are_near_and_say_how_near() -> None:
    network, rows = tiny().eval(), rows_of()
    dense = eigenvalues(network, *rows)
    value = sharpness(network, [rows])
    assert dense[-1] * (1 - value.residual) - 1e-12 <= value.largest <= dense[-1] + 1e-12
    assert value == sharpness(network, [rows])
    assert value != sharpness(network, [rows], seed=1)


class Given(_Hessian):
    """A Hessian with given eigenvalues."""

    def __init__(self, *values: float) -> None:
        self.values = torch.tensor(values).double()
        self.parameters = [self.values]

    def times(self, vector: list[torch.Tensor], shift: float = 0.0) -> list[torch.Tensor]:
        return [(self.values - shift) * vector[0]]


@pytest.mark.parametrize("values", [(2.0, -5.0, 1.0), (-3.0, -1.0, -2.0), (4.0, 1.0, -2.0)])
def test_the_largest_is_not_the_largest_magnitude(values: tuple[float, ...]) -> None:
    largest, residual = _largest(Given(*values), 300, torch.Generator().manual_seed(0))
    assert largest == pytest.approx(max(values), abs=1e-9)
    assert residual < 1e-4


def test_attention_has_a_second_derivative() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    network = nn.Sequential(layer, nn.Flatten(), nn.Linear(40, 3))
    value = sharpness(network, [(torch.randn(6, 5, 8), torch.tensor([0, 1, 2, 0, 1, 2]))], iterations=3, probes=2)
    assert np.isfinite([value.largest, value.trace]).all()


def test_a_convnet_in_f32_and_the_dense_trace() -> None:
    """The layers that kdcache's own networks have: in-place relu, batch norm, pooling."""
    torch.manual_seed(0)
    network = convnet(width=2, depth=1, num_classes=3)
    images, labels = torch.randn(16, 1, 6, 6), torch.randint(0, 3, (16,))
    network(images)
    value = sharpness(network, [(images, labels)], iterations=100, probes=200)
    dense = eigenvalues(network.eval(), images, labels)
    assert value.largest == pytest.approx(dense[-1], rel=1e-3)
    assert abs(value.trace - dense.sum()) < 4 * value.trace_error


def test_errors_name_what_is_wrong() -> None:
    network, (images, labels) = tiny(), rows_of()
    with pytest.raises(InvalidInputError, match="0 rows and 6 parameters"):
        sharpness(network, [])
    with pytest.raises(InvalidInputError, match="40 rows and 0 parameters"):
        sharpness(tiny().requires_grad_(False), [(images, labels)])
    with pytest.raises(InvalidInputError, match="1 of 40 rows have no hard label"):
        sharpness(network, [(images, labels.index_fill(0, torch.tensor([4]), -1))])
    with pytest.raises(InvalidInputError, match="the loss is nan on 40 rows"):
        sharpness(network, [(images * torch.nan, labels)])
    assert network.training  # an error leaves the modes as they were too
