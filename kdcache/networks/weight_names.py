"""Names of weights: those of a network without its wrappers, and those of a file as they fit a network."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

COMPILED = "_orig_mod"
COUNTER = "num_batches_tracked"  # files from before torch 0.4.1 have none
EXTRAS = ("total_ops", "total_params", "n_averaged")  # of thop, and of AveragedModel; no weights
SHOWN = 5


def plain_names(network: nn.Module) -> dict[str, str]:
    """The names of a network's state dict, and what each is without torch.compile and DataParallel."""
    wrappers = [
        f"{name}." if name else ""
        for name, module in network.named_modules(remove_duplicate=False)
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel)
    ]
    names = {}
    for name in network.state_dict():
        plain = name
        for wrapper in sorted(wrappers, key=len, reverse=True):
            if name.startswith(f"{wrapper}module."):
                plain = wrapper + plain[len(wrapper) + len("module.") :]
        names[name] = without_compiled(plain)
    return names


def without_compiled(name: str) -> str:
    """A name as the network has it that was not compiled."""
    return ".".join(part for part in name.split(".") if part != COMPILED)


@dataclass(frozen=True)
class Shared:
    """Tensors that share memory, as tied layers do. Each of `whole` covers all of it: one of them stands for all
    `names`, as in files of safetensors' save_model."""

    names: frozenset[str]
    whole: tuple[str, ...]


@dataclass
class Fit:
    """The fit of a file's names to a network. `names`: the name in the network of each in the file. `dropped` and
    `added`: the beginning that was taken from, or put before, all of the file's names. `extras` are no
    weights. `compiled`: true where the names were those of a network that torch.compile wraps."""

    names: dict[str, str]
    dropped: str = ""
    added: str = ""
    extras: Sequence[str] = ()
    compiled: bool = False
    missing: Sequence[str] = ()
    unknown: Sequence[str] = ()

    @property
    def is_exact(self) -> bool:
        return not self.missing and not self.unknown

    def compare(self, wanted: set[str], groups: Sequence[Shared]) -> None:
        """Note the names that are missing and those that are unknown."""
        present = set(self.names.values())
        missing = {name for name in wanted - present if name.rpartition(".")[2] != COUNTER}
        for group in groups:
            if present.intersection(group.whole):
                missing -= group.names
        self.missing, self.unknown = sorted(missing), sorted(present - wanted)

    def notes(self) -> Iterator[str]:
        """What was done to make the names fit, for the user."""
        if self.dropped:
            yield f"the beginning {self.dropped} of all names was left out"
        if self.added:
            yield f"{self.added} was put before all names"
        if self.compiled:
            yield f"{COMPILED}, by which torch.compile wraps a network, was left out of its names"
        if self.extras:
            yield f"{some(self.extras)} are no weights and were left out"


def fit_names(file_names: Iterable[str], expected: Iterable[str], groups: Sequence[Shared] = ()) -> Fit:
    """The best fit of a file's names to those of a network, whose weights share memory in `groups`."""
    wanted = set(expected)
    extras = [name for name in file_names if name.rpartition(".")[2] in EXTRAS and name not in wanted]
    weights = [name for name in file_names if name not in extras]
    plain = {name: without_compiled(name) for name in weights}
    if len(set(plain.values())) < len(plain):
        plain = {name: name for name in weights}
    compiled = plain.keys() != set(plain.values())
    changes = [("", "")]
    changes += [(beginning, "") for beginning in beginnings(plain.values())]
    tied = {name for group in groups if group.whole for name in group.names}  # the file may lack all but one
    changes += [("", beginning) for beginning in dict.fromkeys([*beginnings(wanted), *beginnings(wanted - tied)])]
    fits = [
        Fit(
            {name: added + text[len(dropped) :] for name, text in plain.items()},
            dropped,
            added,
            extras,
            compiled,
        )
        for dropped, added in changes
    ]
    for fit in fits:
        fit.compare(wanted, groups)
    return min(fits, key=lambda fit: len(fit.missing) + len(fit.unknown))


def beginnings(names: Iterable[str]) -> list[str]:
    """Beginnings, each up to a dot, that all of some names share, the shortest first."""
    names = list(names)
    shared = []
    parts = names[0].split(".")[:-1] if names else []
    for count in range(1, len(parts) + 1):
        beginning = ".".join(parts[:count]) + "."
        if not all(name.startswith(beginning) for name in names):
            break
        shared.append(beginning)
    return shared


def shared_memory(tensors: Mapping[str, Tensor]) -> list[Shared]:
    """The groups of tensors that share memory."""
    by_memory: dict[tuple[torch.device, int], list[str]] = {}
    for name, tensor in tensors.items():
        if not is_lazy(tensor) and tensor.numel() and tensor.device.type != "meta":
            by_memory.setdefault((tensor.device, tensor.untyped_storage().data_ptr()), []).append(name)
    return [
        Shared(frozenset(names), tuple(sorted(name for name in names if _is_whole(tensors[name]))))
        for names in by_memory.values()
        if len(names) > 1
    ]


def _is_whole(tensor: Tensor) -> bool:
    return tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()


def some(names: Sequence[str]) -> str:
    """The first names of many, for a message."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
