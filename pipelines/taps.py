"""The layers of a network that can be kept as taps: names, shapes, bytes a row, and which of them are its stages."""

from math import prod

import torch
from torch import Tensor, nn

from kdcache.base.progress import Progress, silent
from kdcache.base.records import Record
from kdcache.base.tap_names import FEATURES
from kdcache.networks.build import build_network
from kdcache.networks.first_views import first_views, give_shapes
from kdcache.networks.layers import layer_shapes, stages_of
from kdcache.networks.own_input import known_input
from kdcache.networks.preparation import Preparation, default_normalisation
from kdcache.networks.weights import load_weights
from kdcache.pipelines.taps_settings import TapsSettings
from kdcache.training.saved_networks import spelled_out
from kdcache.views.readable import first_view
from kdcache.views.sources import open_data
from kdcache.views.transforms import open_plan

F16 = 2  # bytes
SIDE = 224  # of an image, where nothing names another
AXES_MAX = 4  # of one row of a tap


class Layer(Record):
    """A layer: its name, as `--keep tap:NAME` takes it, the shape of one row's output, and its bytes in f16. `stage`:
    it ends a stage. `module` is the one whose call `call` it is, counted from 1."""

    name: str
    shape: tuple[int, ...]
    bytes_a_row: int
    stage: bool
    module: str
    call: int = 1


class Layers(Record):
    """The layers of a network that give numbers by row, in the order in which they answer an image of shape `image`.
    `twice`: modules that are called more than once. `features`: the width of the classifier's input, 0 without."""

    network: str
    image: tuple[int, ...]
    layers: tuple[Layer, ...]
    stages: tuple[str, ...]
    twice: tuple[str, ...]
    features: int


def list_taps(settings: TapsSettings, *, progress: Progress = silent) -> Layers:
    """The layers of the network that the settings name. Raises InvalidInputError where it cannot be built or takes no
    such images."""
    settings = spelled_out(settings, "network")
    images = _images(settings, progress)
    network = build_network(settings.network, settings.teacher_set, settings.classes, "teacher").eval()
    if settings.weights:
        load_weights(network, settings.weights, "teacher")
    give_shapes(network, images, "teacher")
    with first_views(network, images, "teacher", precision="float32"):
        shapes = layer_shapes(network, images)
    features = shapes.pop(FEATURES, ())  # a module of that name is the input of no classifier, and no tap either
    stages, modules = stages_of(network, shapes), dict(network.named_modules())
    layers = [
        _layer(name, shape, name in stages, modules) for name, shape in shapes.items() if 0 < len(shape) <= AXES_MAX
    ]
    return Layers(
        network=settings.network,
        image=tuple(images.shape[1:]),
        layers=tuple(layers),
        stages=tuple(stages),
        twice=tuple(dict.fromkeys(layer.module for layer in layers if layer.call > 1)),
        features=features[0] if len(features) == 1 else 0,
    )


def _images(settings: TapsSettings, progress: Progress) -> Tensor:
    """Two prepared images: of the data set's first view, or noise of the size that the settings name."""
    if not settings.data:
        wanted = None if settings.size else known_input(settings.network, settings.teacher_set, settings.weights)
        height, width = wanted.sizes[0] if wanted is not None and wanted.sizes else (settings.size or SIDE,) * 2
        return torch.randn(2, settings.channels, height, width)
    data = open_data(settings.data, settings.data_set, progress=progress)
    transform, plan = open_plan(settings.transform, settings.transform_set, mix="none", mix_alpha=1.0, seed=0)
    view = first_view(transform, data.samples, plan.seed)
    return Preparation(*default_normalisation(len(view)), "cpu")(view[None].expand(2, *view.shape))


def _layer(name: str, shape: tuple[int, ...], is_stage: bool, modules: dict[str, nn.Module]) -> Layer:
    module, _, number = (name, "", "0") if name in modules else name.rpartition("_")
    return Layer(
        name=name, shape=shape, bytes_a_row=F16 * prod(shape), stage=is_stage, module=module, call=int(number) + 1
    )
