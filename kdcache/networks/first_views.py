"""A network's first views: an exception that it raises at them becomes an error with its cause and the next step."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kdcache.errors import InvalidInputError, KdcacheError
from kdcache.networks.answers import are_tokens
from kdcache.networks.out_of_memory import is_out_of_memory

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # of PIL, by channels


@contextmanager
def first_views(network: nn.Module, images: Tensor, noun: str, *, precision: str) -> Iterator[None]:
    """While open, the network is asked about its first prepared views [B, ch, H, W]; `noun` names it: teacher, student.

    Raises InvalidInputError for any exception of the network's own but lack of memory: it is taken to come from the
    views' form.
    """
    try:
        yield
    except KdcacheError:
        raise
    except Exception as error:  # a network is its user's code, which may raise anything
        if is_out_of_memory(error):
            raise
        message = str(error).partition("\n")[0] or type(error).__name__
        if are_tokens(images):
            raise InvalidInputError(
                f"the {noun} does not take texts of {images.shape[1]} tokens, {images.dtype} [texts, tokens]: {message}"
                f"; check --data-set sequence, and that --{noun} is a language model of this vocabulary"
            ) from error
        advice = _dtype_advice(network, images, noun, precision) or _channel_advice(network, images, noun)
        advice = advice or f"check --transform and its size, and --{noun}"
        raise InvalidInputError(
            f"the {noun} does not take views of shape {list(images.shape[1:])} [channels, height, width]: {message}; "
            f"{advice}"
        ) from error


def has_lazy(network: nn.Module) -> bool:
    """True for a network with lazy modules that have no shapes yet."""
    return any(map(is_lazy, (*network.parameters(), *network.buffers())))


def give_shapes(network: nn.Module, images: Tensor, noun: str) -> None:
    """Let the lazy modules of a network take their shapes from prepared views [B, ch, H, W], where it has some. Raises
    InvalidInputError as `first_views` does."""
    if has_lazy(network):
        images = images.to(next(chain(network.parameters(), network.buffers())).device)
        with first_views(network, images, noun, precision="float32"), torch.no_grad():
            network.eval()(images)


def _dtype_advice(network: nn.Module, images: Tensor, noun: str, precision: str) -> str:
    """The next step where views and network have two dtypes; "" elsewhere."""
    if not images.is_floating_point():
        return f"the views have dtype {images.dtype}: give uint8 (0 to 255), or float32 once they are normalised"
    dtypes = {parameter.dtype for parameter in network.parameters() if parameter.is_floating_point()}
    if precision != "float32" or not dtypes or images.dtype in dtypes:
        return ""
    names = ", ".join(sorted(map(str, dtypes)))
    if images.dtype != torch.float32:
        return f"the views have dtype {images.dtype}, the {noun} {names}: give uint8 views, or float32 once normalised"
    return (
        f"the {noun} has weights of dtype {names}, its views {images.dtype}: return it with .float(), and choose the "
        "dtype that it computes in by --precision"
    )


def _channel_advice(network: nn.Module, images: Tensor, noun: str) -> str:
    """The next step where the first convolution wants other channels than the views have; "" elsewhere."""
    convolution = next((module for module in network.modules() if isinstance(module, CONVOLUTIONS)), None)
    count = images.shape[1]
    if convolution is None or convolution.in_channels == count:
        return ""
    problem = f"the views have {count} channels, its first convolution takes {convolution.in_channels}"
    if images.shape[-1] in MODES and count not in MODES:
        return f"{problem}: they look like [height, width, channels]; let data set or transform permute(2, 0, 1) them"
    if (mode := MODES.get(convolution.in_channels)) is None:
        return f"{problem}: give views of as many"
    return (
        f"{problem}: return image.convert('{mode}') from data set or transform, or name a network of {count} channels "
        f"(kdcache.networks:convnet takes --{noun}-set channels={count})"
    )
