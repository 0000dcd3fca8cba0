"""`kdcache taps` lists the layers of a network whose outputs a store can keep."""

from typing import Any

from kdcache.cli.console import print_json, print_line, print_table
from kdcache.cli.flags import with_flags
from kdcache.cli.progress import progress_bar
from kdcache.pipelines.settings import load_settings
from kdcache.pipelines.taps_settings import TapsSettings

EXAMPLES = ("kdcache taps torchvision:resnet18 --data folder:photos --transform imagenet",)


@with_flags(TapsSettings, "network")
def command(flags: dict[str, Any], config: str | None, as_json: bool) -> None:
    from kdcache.pipelines.taps import list_taps

    settings = load_settings(TapsSettings, flags, config)
    with progress_bar(quiet=as_json) as progress:
        layers = list_taps(settings, progress=progress)
    if as_json:
        print_json(layers.model_dump())
        return
    rows = [
        [layer.name, " x ".join(map(str, layer.shape)), layer.bytes_a_row, _remark(layer)] for layer in layers.layers
    ]
    image = " x ".join(map(str, layers.image))
    print_table(
        ["tap", "shape", "bytes a row", ""], rows, title=f"{layers.network} on an image of {image}, taps in f16"
    )
    print_line(f"features: {layers.features or 'none'} (the input of the classifier, --keep features)")
    print_line(f"stages: {', '.join(layers.stages) or 'none'} (--keep stages keeps each pooled to 1 x 1)")
    if layers.twice:
        print_line(f"called more than once: {', '.join(layers.twice)}")
    print_line(
        "keep one with --keep tap:NAME, pooled with --keep tap:NAME@HxW; nodes of the traced graph, such as "
        "layer1.0.add, can be named too where the network can be traced"
    )


def _remark(layer: Any) -> str:
    return "stage" if layer.stage else f"call {layer.call}" if layer.call > 1 else ""
