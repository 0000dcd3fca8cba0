"""Networks by spec, their weights and digest, and a teacher: a frozen network that answers in f32.

Shape letters: B rows, C classes, D width of the penultimate features.
"""

import hashlib
import inspect
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kdcache.devices import to_device
from kdcache.errors import InvalidInputError
from kdcache.manifest import TeacherIdentity
from kdcache.specs import call, load_callable, own_source, portable_name

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def build_network(spec: str, arguments: dict[str, Any], classes: int, what: str) -> nn.Module:
    """The network of a spec: torchvision:NAME, timm:NAME, package.module:callable or file.py:callable.

    The data set's number of classes is passed as `num_classes` where the factory takes it, it is not given, and no
    pretrained weights are asked for.
    """
    kind, colon, name = spec.partition(":")
    if not colon or not name:
        forms = "torchvision:NAME, timm:NAME, package.module:callable or file.py:callable"
        raise InvalidInputError(f"{what} {spec!r} names no network; write {forms}")
    pretrained = bool(arguments.get("weights") or arguments.get("pretrained"))
    counted = {} if pretrained or not classes or "num_classes" in arguments else {"num_classes": classes}
    try:
        if kind == "torchvision":
            network = torchvision.models.get_model(name, **{**counted, **arguments})
        elif kind == "timm":
            network = _timm().create_model(name, **{**counted, **arguments})
        else:
            factory = load_callable(spec, what)
            taken = counted if "num_classes" in inspect.signature(factory).parameters else {}
            network = call(factory, {**taken, **arguments}, f"{what} {spec}")
    except (ValueError, TypeError, RuntimeError, OSError, KeyError) as error:
        advice = "check its name and arguments; where weights cannot be fetched, give them with --weights FILE"
        raise InvalidInputError(f"{what} {spec} with {arguments} cannot be built: {error}; {advice}") from error
    if not isinstance(network, nn.Module):
        raise InvalidInputError(f"{what} {spec} returned a {type(network).__name__}; it must return a torch.nn.Module")
    return network


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise InvalidInputError("timm is not installed; pip install 'kdcache[timm]'") from error
    return timm


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load a safetensors file or a state dict (weights only, never pickled code). Raises InvalidInputError."""
    state = read_state(Path(path))
    own = network.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [name for name in own.keys() & state.keys() if own[name].shape != state[name].shape]
    if missing or extra or shapes:
        parts = [
            f"{len(names)} {kind} (first: {names[0]})"
            for kind, names in (("missing", missing), ("unknown", extra), ("of another shape", sorted(shapes)))
            if names
        ]
        raise InvalidInputError(f"weights {path} do not fit the network: {', '.join(parts)}; check --teacher-set")
    network.load_state_dict(state)


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name from safetensors or a torch file; one level of "state_dict" or "model" is looked through."""
    if not path.is_file():
        raise InvalidInputError(f"weights {path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InvalidInputError(f"weights {path} cannot be read: {error}") from error
    except Exception as error:  # torch's pickle errors share no base that is public
        if type(error).__name__ != "UnpicklingError":
            raise
        advice = "it holds more than tensors; save a plain state dict or safetensors"
        raise InvalidInputError(f"weights {path} are refused: {advice}") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise InvalidInputError(f"weights {path} hold no plain state dict of tensors")
    return loaded


def weights_digest(network: nn.Module) -> str:
    """sha256 over names, dtypes, shapes and values of all parameters and buffers, sorted by name."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        values = value.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {list(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data if values.numel() else b"")
    return digest.hexdigest()


def network_text(network: nn.Module, spec: str) -> str:
    """sha256 over the classes of all modules, and over the sources of those that are the user's own and of its factory.

    Equal weights may meet another forward: this tells an edited network file from the one that answered before.
    """
    lines = [
        f"{name}: {type(module).__module__}.{type(module).__qualname__}" for name, module in network.named_modules()
    ]
    sources = {own_source(type(module)) for module in network.modules()}
    if spec.partition(":")[0] not in ("torchvision", "timm"):
        sources.add(own_source(load_callable(spec, "teacher")))
    return "sha256 " + hashlib.sha256("\n".join([*lines, *sorted(sources)]).encode()).hexdigest()


def default_normalisation(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """ImageNet's mean and std for three channels, one half each for others."""
    return (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,) * channels, (0.5,) * channels)


class Preparation:
    """Views to network input: u8 to 0..1, less mean, by std, channels last. Float views pass through unchanged."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: str) -> None:
        self.mean, self.std, self.device = mean, std, device
        self._scale = torch.tensor([1.0 / (255.0 * value) for value in std], device=device)[None, :, None, None]
        shift = [-m / s for m, s in zip(mean, std, strict=True)]
        self._shift = torch.tensor(shift, device=device)[None, :, None, None]

    def __call__(self, images: Tensor) -> Tensor:
        images = to_device(images, self.device)
        if images.dtype != torch.uint8:
            return images.to(memory_format=torch.channels_last)
        room = torch.empty(images.shape, dtype=torch.float32, device=images.device, memory_format=torch.channels_last)
        return self.normalise(room.copy_(images))

    def normalise(self, values: Tensor) -> Tensor:
        """The f32 values 0..255 of u8 views, on their device, made network input in place."""
        if values.shape[1] != len(self.mean):
            raise InvalidInputError(
                f"views have {values.shape[1]} channels, mean and std have {len(self.mean)}; set --mean and --std"
            )
        return torch.addcmul(self._shift, values, self._scale, out=values)


class Teacher:
    """A network in eval mode with its input preparation; `answer` gives f32 logits and pooled features."""

    def __init__(
        self,
        network: nn.Module,
        *,
        preparation: Preparation,
        precision: Precision = "float32",
        masked_classes: tuple[int, ...] = (),
    ) -> None:
        frozen = network.eval().requires_grad_(False).to(preparation.device)
        if stuck := [name or "the network" for name, module in network.named_modules() if module.training]:
            raise InvalidInputError(
                f"the teacher stays in train mode: {stuck[0]} ({len(stuck)} modules) is in train mode after eval(); a "
                "teacher answers in eval mode: mend the train() or eval() that the network overrides"
            )
        self.network = frozen.to(memory_format=torch.channels_last)
        self.preparation = preparation
        self.precision = precision
        self.masked_classes = masked_classes
        self._features: Tensor | None = None
        self.head = find_head(network)
        if self.head is not None:
            self.head.register_forward_pre_hook(self._before_head)
            self.head.register_forward_hook(self._after_head)

    def answer(self, prepared: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits [B, C] f32 and features [B, D] f32 (None where no linear head was found) of prepared images."""
        device = torch.device(self.preparation.device).type
        cast = torch.autocast(device, PRECISIONS[self.precision]) if self.precision != "float32" else nullcontext()
        self._features = None
        with torch.inference_mode(), cast:
            logits = self.network(prepared)
        if isinstance(logits, tuple) or not isinstance(logits, Tensor) or logits.ndim != 2:
            shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise InvalidInputError(f"the teacher answered {shape}; it must answer logits [rows, classes]")
        return logits.float(), self._features

    def identity(self, name: str, arguments: dict[str, Any], classes: int, text: str = "") -> TeacherIdentity:
        """What makes this teacher this one; `text` as from `network_text`."""
        return TeacherIdentity(
            name=portable_name(name),
            arguments=arguments,
            text=text,
            weights=weights_digest(self.network),
            classes=classes,
            precision=self.precision,
            mean=self.preparation.mean,
            std=self.preparation.std,
            masked_classes=self.masked_classes,
        )

    def head_arrays(self) -> dict[str, Any]:
        """The classifier's weight [C, D] and bias [C], f32 numpy. Raises InvalidInputError where there is none."""
        if self.head is None:
            raise InvalidInputError("the teacher does not end in a linear layer; extract without --keep head,features")
        weight = self.head.weight.detach().float().cpu()
        bias = torch.zeros(len(weight)) if self.head.bias is None else self.head.bias.detach().float().cpu()
        return {"weight": weight.numpy(), "bias": bias.numpy()}

    def _before_head(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features = inputs[0].detach().float().flatten(1) if inputs[0].ndim == 2 else None

    def _after_head(self, module: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        """The classifier in f32 under autocast: its rounding would be the largest error of the store."""
        if self.precision == "float32":
            return None
        with torch.autocast(output.device.type, enabled=False):
            bias = None if module.bias is None else module.bias.float()
            return nn.functional.linear(inputs[0].float(), module.weight.float(), bias)


def find_head(network: nn.Module) -> nn.Linear | None:
    """The classifier: the last linear layer among the modules."""
    linears = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return linears[-1] if linears else None
