"""The head of a network: the linear layer that turns its pooled features into logits.

Shape letters: B rows, N classes of the network.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

TAP_HOOK = "kdcache_tap"  # an attribute of the hooks that note outputs, which change no answer
DISORDER = 1e-2  # of the range of the logits, by which rounding may exchange two classes


def find_head(network: nn.Module) -> nn.Linear | None:
    """The presumed classifier: the last linear layer among the modules."""
    linears = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return linears[-1] if linears else None


@contextmanager
def linear_outputs(network: nn.Module) -> Iterator[dict[nn.Linear, Tensor]]:
    """While open, the latest output of each linear layer that is called, in the order of the calls."""
    outputs: dict[nn.Linear, Tensor] = {}

    def note(module: Any, inputs: Any, output: Any) -> None:
        outputs.pop(module, None)
        if isinstance(output, Tensor):
            outputs[module] = output.detach().float()

    note.__dict__[TAP_HOOK] = True
    with ExitStack() as stack:
        for module in network.modules():
            if isinstance(module, nn.Linear):
                stack.callback(module.register_forward_hook(note).remove)
        yield outputs


def answering_head(presumed: nn.Linear | None, outputs: dict[nn.Linear, Tensor], answer_BN: Tensor) -> nn.Linear | None:
    """The linear layer whose output is the answer, up to what leaves the classes in their order: the presumed one, or
    else the one that was called last. None where neither is, as for the mean of two heads."""
    others = [module for module in reversed(outputs) if module is not presumed]
    for module in (presumed, *others):
        if module in outputs and _are_in_order(outputs[module], answer_BN.detach().float()):
            return module
    return None


def _are_in_order(output: Tensor, answer_BN: Tensor) -> bool:
    """True where an output has the answer's shape and its classes in the answer's order."""
    if output.shape != answer_BN.shape:
        return False
    in_order = output.gather(1, answer_BN.argsort(dim=1))
    return bool((in_order.diff(dim=1) >= -DISORDER * (output.max() - output.min())).all())
