"""Taps: outputs of named layers, taken while a network answers, as they are or pooled.

A layer is named as a module is (`layer4`, `blocks.3.norm2`); the second call of one module is `relu_1`, the third
`relu_2`, as in torchvision's feature extraction. Names that only its traced graph has (`layer1.0.add`, `flatten`) work
where the network can be traced. `LAYER@HxW` pools, and `features` is the input of the classifier. Maps are given as
[C, H, W], whichever axis a network has its channels on.

Shape letters: B rows, N classes of the network, C channels, T tokens, D width, [H, W] of a map.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.fx import Graph
from torch.nn import functional
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from kdcache.base.tap_names import FEATURES, TapName
from kdcache.errors import InvalidInputError
from kdcache.networks.answers import answered
from kdcache.networks.heads import TAP_HOOK, find_head

NAMED = 60  # layers that a message lists
ANSWER = "kdcache_answer"  # the key of a traced graph's own output

Take = Callable[[str, Tensor], Tensor]


class Tapped(nn.Module):
    """A network that answers its logits [B, N] and the taps of some names, in one forward.

    Hooks stand only during a forward, so that the network stays what it was: copies of it, its state and other callers
    see nothing. A tap is a copy of the layer's output, which the next layer may overwrite in place; one that is pooled
    alone is pooled at once, so that no whole map is held. `noun` names the network in messages. Raises
    InvalidInputError for a layer that the network has not, listing those that it has.
    """

    def __init__(self, network: nn.Module, names: Sequence[str], noun: str = "network") -> None:
        super().__init__()
        self.network, self.noun = network, noun
        self.taps = tuple(TapName.parse(name) for name in dict.fromkeys(names))
        self._layers = [tap.layer for tap in self.taps if tap.layer != FEATURES]
        self._sees_features = any(tap.layer == FEATURES for tap in self.taps)
        self._pooled = {tap.layer: tap for tap in self.taps if tap.size and self._layers.count(tap.layer) == 1}
        by_module = all(is_module_call(network, layer) for layer in self._layers)
        self._graph = None if by_module else _traced(network, self._layers, noun)

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits [B, N] and the taps [B, ...] by name, for prepared images [B, ch, H, W]."""
        outputs: dict[str, Tensor] = {}
        with ExitStack() as stack:
            if self._sees_features:
                stack.enter_context(head_inputs(find_head(self.network), outputs))
            if self._graph is None:
                stack.enter_context(layer_outputs(self.network, outputs, self._layers, self._take(images)))
                output = self.network(images)
            else:
                _follow_mode(self._graph, self.network.training)
                values, take = self._graph(images), self._take(images)
                output = values.pop(ANSWER)
                outputs |= {name: take(name, tensor) for name, tensor in values.items() if isinstance(tensor, Tensor)}
        logits = answered(output, images, self.noun)
        return logits, {str(tap): self._tap(tap, outputs, len(images)) for tap in self.taps}

    def _take(self, images: Tensor) -> Take:
        """A function that keeps a layer's output for a batch of images: maps as [B, C, H, W], pooled, or a copy."""
        rows, views = len(images), images.shape[2:]

        def take(layer: str, values: Tensor) -> Tensor:
            tap = self._pooled.get(layer)
            is_by_row = values.ndim >= 2 and len(values) == rows
            maps = as_maps(values, self.network, views)
            return pooled(maps, tap, self.noun) if tap is not None and is_by_row else maps.clone()

        return take

    def _tap(self, tap: TapName, outputs: dict[str, Tensor], rows: int) -> Tensor:
        values = outputs.get(tap.layer)
        if values is None and tap.layer == FEATURES:
            raise InvalidInputError(
                f"the {self.noun} gives no pooled features before a linear head; name one of its layers instead"
            )
        if values is None:
            raise InvalidInputError(
                f"layer {tap.layer} of the {self.noun} took no part in its answer, or answers no tensor; choose "
                "another (kdcache taps lists those that do)"
            )
        if values.ndim < 2 or len(values) != rows:
            raise InvalidInputError(
                f"layer {tap.layer} of the {self.noun} gives {list(values.shape)} for {rows} rows: its first axis does "
                "not count rows; choose another (kdcache taps lists those that do)"
            )
        return values if tap.size is None or tap.layer in self._pooled else pooled(values, tap, self.noun)


def is_module_call(network: nn.Module, name: str) -> bool:
    """True for the name of a module, or of one with the number of a later call behind it."""
    modules = dict(network.named_modules())
    return name in modules or _later_call(name, modules) is not None


@contextmanager
def layer_outputs(
    network: nn.Module, outputs: dict[str, Tensor], names: Iterable[str] | None = None, take: Take | None = None
) -> Iterator[None]:
    """Note the output of each of these layers in `outputs`, in the order in which they answer: a copy of it, or
    `take(name, output)`. Without names: of all layers, and no copies."""
    modules = dict(network.named_modules())
    wanted = None if names is None else set(names)
    used = (
        set(modules) if wanted is None else {name if name in modules else _later_call(name, modules) for name in wanted}
    )
    calls: dict[str, int] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            count = calls[name] = calls.get(name, -1) + 1
            label = name if not count else f"{name}_{count}"
            if (wanted is None or label in wanted) and (tensor := first_tensor(output)) is not None:
                outputs[label] = tensor if wanted is None else take(label, tensor) if take else tensor.clone()

        hook.__dict__[TAP_HOOK] = True
        return hook

    handles = [modules[name].register_forward_hook(note(name)) for name in used if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def pooled(values: Tensor, tap: TapName, noun: str) -> Tensor:
    """A layer's output pooled adaptively by the mean: maps [B, C, H, W] to [B, C, h, w], tokens [B, T, D] to [B, w, D],
    in f32. Raises InvalidInputError for an output without places, or a larger size."""
    assert tap.size is not None
    height, width = tap.size
    shape = list(values.shape[1:])
    if values.ndim == 4:
        if height > values.shape[2] or width > values.shape[3]:
            raise InvalidInputError(f"tap {tap} of the {noun} is larger than the layer's own {shape}; pool to less")
        return functional.adaptive_avg_pool2d(values.float(), tap.size)
    if values.ndim == 3 and height == 1:
        if width > values.shape[1]:
            raise InvalidInputError(f"tap {tap} of the {noun} has more tokens than the layer's {shape}; pool to less")
        return functional.adaptive_avg_pool1d(values.float().transpose(1, 2), width).transpose(1, 2)
    advice = f"tokens are pooled as {tap.layer}@1x{width}" if values.ndim == 3 else f"keep it as tap:{tap.layer}"
    raise InvalidInputError(
        f"tap {tap}: the {noun}'s layer {tap.layer} gives {shape}, which has no {height} x {width}: {advice}"
    )


def as_maps(values: Tensor, network: nn.Module, views: Sequence[int]) -> Tensor:
    """A layer's output for views [h, w], its maps as [B, C, H, W].

    They are taken as [B, H, W, C] (Swin) only where all says so: the first two axes have the proportions of the views,
    the last two have not, and the network has a layer that works along a last axis of C. All else stays as it is.
    """
    if values.ndim != 4 or len(views) != 2:
        return values
    first, second, last = values.shape[1:]
    is_last = _in_proportion(first, second, views) and not _in_proportion(second, last, views)
    return values.permute(0, 3, 1, 2) if is_last and last in _widths(network) else values


def _in_proportion(height: int, width: int, views: Sequence[int]) -> bool:
    """True where a map of this size may be that of views [h, w], with up to one place of rounding on an axis."""
    h, w = views
    return height == width if h == w else abs(height * w - width * h) <= max(h, w)


def _widths(network: nn.Module) -> set[int]:
    """Lengths of a last axis along which layers of a network work."""
    widths: set[int] = set()
    for module in network.modules():
        if isinstance(shape := getattr(module, "normalized_shape", None), tuple) and len(shape) == 1:
            widths.add(int(shape[0]))
        if isinstance(module, nn.Linear):
            widths |= {module.in_features, module.out_features}
    return widths


def first_tensor(output: Any) -> Tensor | None:
    """The tensor that a layer gives, or the first of several, as those of a mapping; None where it gives none."""
    if isinstance(output, tuple | list | Mapping):
        values = output.values() if isinstance(output, Mapping) else output
        return next((value for value in values if isinstance(value, Tensor)), None)
    return output if isinstance(output, Tensor) else None


@contextmanager
def head_inputs(head: nn.Linear | None, outputs: dict[str, Tensor]) -> Iterator[None]:
    """Note the input [B, D] of a classifier as `features`; nothing where there is none, or it takes no [B, D]."""
    if head is None:
        yield
        return

    def hook(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        tensor = first_tensor([*inputs, *named.values()])
        if tensor is not None and tensor.ndim == 2:
            outputs[FEATURES] = tensor.clone()

    handle = head.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _later_call(name: str, modules: dict[str, nn.Module]) -> str | None:
    """The module of a name such as `relu_1`, its second call; None where it names no module."""
    module, _, number = name.rpartition("_")
    return module if module in modules and number.isdecimal() and number != "0" else None


def _traced(network: nn.Module, names: Sequence[str], noun: str) -> nn.Module:
    """The traced graph of a network, which answers the nodes of these names and its own output by `ANSWER`."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        nodes = get_graph_node_names(network)
        returned = [{**{name: name for name in names}, own[-1]: ANSWER} for own in nodes]
        if own := [name for name in names if name == nodes[1][-1]]:
            raise ValueError(f"{own[0]} is the network's own answer")
        traced: Any = create_feature_extractor(network, train_return_nodes=returned[0], eval_return_nodes=returned[1])
        for graph in (traced.train_graph, traced.eval_graph):
            _copy_returned(graph)
        traced.graph = traced.train_graph if traced.training else traced.eval_graph
        network_graph: nn.Module = traced
        return network_graph
    except Exception as error:
        layers = [name for name, _ in network.named_modules() if name]
        missing = ", ".join(name for name in names if not is_module_call(network, name))
        others = f" and {len(layers) - NAMED} others" if len(layers) > NAMED else ""
        raise InvalidInputError(
            f"the {noun} has no layer {missing}; its layers are {', '.join(layers[:NAMED])}{others} (kdcache taps "
            "lists all with their shapes)"
        ) from error
    finally:
        for module, training in modes:
            module.training = training


def _copy_returned(graph: Graph) -> None:
    """Let a graph return copies of its nodes, taken before a later node may write into them, as an in-place ReLU does
    into the sum of a residual block."""
    returned = next(node for node in graph.nodes if node.op == "output")
    copies = {}
    for name, node in returned.args[0].items():
        with graph.inserting_after(node):
            copies[name] = node if name == ANSWER else graph.call_function(_copied, (node,))
    returned.args = (copies,)


def _copied(output: Any) -> Any:
    """A copy of what a layer gives, where that is a tensor or holds one."""
    tensor = first_tensor(output)
    return output if tensor is None else tensor.clone()


def _follow_mode(graph: nn.Module, training: bool) -> None:
    """Let a traced graph run as in a mode. Its layers are the network's own and keep theirs: some may be frozen."""
    wanted = graph.train_graph if training else graph.eval_graph
    if graph.graph is not wanted:
        graph.graph = wanted
    graph.training = training
