"""The head of a network: the linear layer that turns its pooled features into logits."""

from torch import nn


def find_head(network: nn.Module) -> nn.Linear | None:
    """The classifier: the last linear layer among the modules."""
    linears = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return linears[-1] if linears else None
