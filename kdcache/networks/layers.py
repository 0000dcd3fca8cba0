"""The layers of a network and the shapes that they give, and which of them are its stages.

Shape letters: B rows, C channels, T tokens, D width, [H, W] of a map.
"""

from math import prod

import torch
from torch import Tensor, nn

from kdcache.base.tap_names import FEATURES
from kdcache.networks.heads import find_head
from kdcache.networks.taps import as_maps, head_inputs, layer_outputs

Shape = tuple[int, ...]


def layer_shapes(network: nn.Module, images: Tensor) -> dict[str, Shape]:
    """The shape of one row's output of each layer that gives one, by name, in the order in which they give it, and last
    `features` where there are any; of maps [C, H, W].

    The network is asked about prepared images [B, ch, H, W], B at least 2, in eval mode, and left in its own."""
    outputs: dict[str, Tensor] = {}
    features: dict[str, Tensor] = {}
    modes = [(module, module.training) for module in network.modules()]
    try:
        with torch.no_grad(), layer_outputs(network.eval(), outputs), head_inputs(find_head(network), features):
            network(images.clone())
    finally:
        for module, training in modes:
            module.training = training
    by_row = {name: values for name, values in (outputs | features).items() if _is_by_row(values, len(images))}
    return {name: tuple(as_maps(values, network, images.shape[2:]).shape[1:]) for name, values in by_row.items()}


def stages_of(network: nn.Module, shapes: dict[str, Shape]) -> list[str]:
    """The layers that end the stages of a network, in order: of each size of a map the last layer that gives it, or,
    where the network works on tokens, each of its blocks. Empty for a network of neither."""
    return _blocks(network, shapes) or _last_maps(shapes)


def last_stage(network: nn.Module, shapes: dict[str, Shape]) -> str:
    """The layer that ends the last stage; `features` for a network without maps or tokens; empty without those too."""
    return next(reversed(stages_of(network, shapes)), FEATURES if FEATURES in shapes else "")


def _last_maps(shapes: dict[str, Shape]) -> list[str]:
    """Of each size above 1 x 1 the last layer that gives it, among the outermost layers and those one level inside:
    deeper ones are parts of a block, such as the convolution that widens before the size falls."""
    sizes = {name: shape[1:] for name, shape in shapes.items() if len(shape) == 3 and name != FEATURES}
    maps = {name: size for name, size in sizes.items() if prod(size) > 1}
    outermost = min((name.count(".") for name in maps), default=0)
    last: dict[Shape, str] = {}
    for name, size in maps.items():
        if name.count(".") <= outermost + 1:
            last.pop(size, None)
            last[size] = name
    return list(last.values())


def _blocks(network: nn.Module, shapes: dict[str, Shape]) -> list[str]:
    """Members, two at least, of the outermost lists of modules that give tokens [T, D]."""
    names: list[str] = []
    for path, module in network.named_modules():
        if isinstance(module, nn.ModuleList | nn.Sequential) and not any(path.startswith(f"{name}.") for name in names):
            members = [f"{path}.{child}".lstrip(".") for child, _ in module.named_children()]
            tokens = [member for member in members if len(shapes.get(member, ())) == 2 and prod(shapes[member]) > 1]
            names += tokens if len(tokens) > 1 else []
    return names


def _is_by_row(values: Tensor, rows: int) -> bool:
    return values.ndim > 1 and len(values) == rows and values.is_floating_point()
