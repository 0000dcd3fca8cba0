"""Names of a network's classes: of its weights file, its own attribute, timm, torchvision, and ImageNet's synsets."""

import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

import torchvision
from torch import nn

from kdcache.networks.transformers_folder import is_transformers
from kdcache.store.lineage import read_class_names
from kdcache.views.class_files import SYNSET

IMAGENET = 1000  # classes, whose synsets are known in the order of their ids


@dataclass(frozen=True)
class Vocabulary:
    """Names of the classes 0 to N - 1, and their `source` for the user. `is_known` is false for names that the network
    only may have: any network of 1,000 classes may answer ImageNet's."""

    source: str
    names: tuple[str, ...]
    is_known: bool = True

    def numbers(self, name: str) -> tuple[int, ...]:
        """The classes of a name: those that have it as it is written, else those that have it in another case, with
        spaces for underscores, else those of the synset that it begins with."""
        synset = SYNSET.match(name)
        numbers = self._exact.get(name) or self._folded.get(folded(name))
        return tuple(numbers or (self._exact.get(synset[1]) if synset else None) or ())

    @cached_property
    def _exact(self) -> dict[str, list[int]]:
        return _by_name(self.names)

    @cached_property
    def _folded(self) -> dict[str, list[int]]:
        return _by_name(tuple(map(folded, self.names)))


def folded(name: str) -> str:
    """A name without its case, and with spaces for underscores."""
    return " ".join(unicodedata.normalize("NFC", name).casefold().replace("_", " ").split())


def vocabularies(
    network: nn.Module, *, spec: str, arguments: dict[str, Any], weights: str, classes: int
) -> list[Vocabulary]:
    """The vocabularies of a network that answers `classes` classes, the surest first. `spec`, `arguments` and `weights`
    are those that it was built by. Raises InvalidInputError for a weights file that cannot be read."""
    sources: list[tuple[str, Any]] = []
    if weights:
        sources.append((f"the weights {weights}", read_class_names(weights)))
    sources.append(("the teacher's class_names", getattr(network, "class_names", None)))
    if not weights:  # a file's classes are not those of the weights that it replaced
        sources.append(("torchvision's categories", _of_torchvision(spec, arguments)))
        sources += [("id2label of its config.json", names) for names in _of_transformers(network, spec)]
        sources += [("timm's label names", names) for names in _of_timm(network, spec, arguments)]
    known = [
        Vocabulary(source, tuple(names))
        for source, names in sources
        if isinstance(names, list | tuple)
        and len(names) == classes
        and all(isinstance(name, str) and name for name in names)
    ]
    if classes != IMAGENET or (weights and read_class_names(weights)):
        return known
    return [*known, Vocabulary("ImageNet's synsets", synsets(), is_known=False)]


@cache
def synsets() -> tuple[str, ...]:
    """ImageNet's 1,000 synsets (Russakovsky et al. 2015), such as n01440764, in the order of their classes."""
    return tuple(files("kdcache.networks").joinpath("imagenet_synsets.txt").read_text("ascii").split())


def _of_torchvision(spec: str, arguments: dict[str, Any]) -> Any:
    kind, _, name = spec.partition(":")
    weights = arguments.get("weights")
    if kind != "torchvision" or not isinstance(weights, str):
        return None
    try:
        enum = torchvision.models.get_model_weights(name)
        return enum[weights.rpartition(".")[2]].meta.get("categories")
    except (KeyError, ValueError):
        return None


def _of_transformers(network: nn.Module, spec: str) -> list[list[str]]:
    """The names of a transformers network's classes; of those that are lists of synonyms, `tench, Tinca tinca`, also
    the first ones. None where it has none of its own."""
    labels = getattr(getattr(network, "config", None), "id2label", None) if is_transformers(spec) else None
    names = [str(labels[number]) for number in sorted(labels)] if labels else []
    if names == [f"LABEL_{number}" for number in range(len(names))]:
        return []
    return [names, [name.partition(",")[0].strip() for name in names]]


def _of_timm(network: nn.Module, spec: str, arguments: dict[str, Any]) -> list[Any]:
    """Label names as timm's configuration of the pretrained weights has them, and those of the data set that these were
    trained on."""
    if spec.partition(":")[0] != "timm" or not arguments.get("pretrained"):
        return []
    config = getattr(network, "pretrained_cfg", None) or {}
    names = [config.get("label_names")]
    try:
        from timm.data import ImageNetInfo, infer_imagenet_subset

        subset: Any = infer_imagenet_subset(network)
        info: Any = ImageNetInfo(subset) if subset else None
        names += [info.label_names()] if info else []
    except (ImportError, AttributeError, ValueError, AssertionError):  # an older timm
        pass
    return names


def _by_name(names: tuple[str, ...]) -> dict[str, list[int]]:
    by_name: dict[str, list[int]] = defaultdict(list)
    for number, name in enumerate(names):
        by_name[name].append(number)
    return dict(by_name)
