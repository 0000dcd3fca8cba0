"""A network compiled by torch.compile, and the errors of its compiler."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from kdcache.base.user_code import exception_text
from kdcache.errors import InvalidInputError


def compile_network(network: nn.Module) -> None:
    """Compile a network's forward in place, at its first call: the names of its weights stay."""
    import torch._dynamo.config

    torch._dynamo.config.skip_nnmodule_hook_guards = False  # taps are hooks: what was compiled without them lacks them
    network.compile()


@contextmanager
def naming_compiler() -> Iterator[None]:
    """Raises InvalidInputError for what the compiler refuses."""
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        text = exception_text(error).strip().splitlines()[0]
        raise InvalidInputError(
            f"--compile: torch.compile cannot compile the student: {text}; leave --compile out, or give it a C++ "
            "compiler (environment variable CXX) and a network that it takes"
        ) from error
