"""Weights of a network: they are loaded from files of many kinds, made ready to be saved, and known by a digest."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kdcache.base.weights_path import split_weights
from kdcache.errors import InvalidInputError
from kdcache.networks.weight_names import Fit, fit_names, plain_names, shared_memory, some
from kdcache.networks.weights_files import State, read_states

USUAL = ("state_dict", "model")  # under these keys the world keeps the state dict that is meant


def load_weights(
    network: nn.Module, path: str | Path, noun: str = "teacher", subclasses: tuple[int, int] = (1, 1)
) -> tuple[str, ...]:
    """Load a weights file, `FILE` or `FILE#KEY`, into a network (weights only, never pickled code).

    Returns notes on what was done to make it fit: a beginning of all names left out, one state dict of several taken,
    numbers rounded. `noun` (teacher or student) names the flag in messages, which tell the `subclasses` of the file's
    network and of this one. Raises InvalidInputError for a file that cannot be read or does not fit; the network is as
    it was.
    """
    network_names = {plain: name for name, plain in plain_names(network).items()}
    own_state = network.state_dict()
    expected = {plain: own_state[name] for plain, name in network_names.items() if isinstance(own_state[name], Tensor)}
    groups = shared_memory(expected)
    states = read_states(path)
    fits = {key: fit_names(state, expected, groups) for key, state in states.items()}
    key = _chosen(path, fits)
    fit = fits[key]
    if not fit.is_exact:
        raise _misfit(path, states, key, fit, expected, noun)
    state = {fit.names[name]: value for name, value in states[key].items() if name in fit.names}
    _require_shapes(path, state, expected, noun, subclasses)
    _require_dtypes(path, state, expected)
    _require_numbers(path, state)
    for group in groups:
        _require_one_value(path, {name: state[name] for name in sorted(group.names & state.keys())}, expected)
    notes = [*_choice_notes(path, fits, key), *fit.notes(), *_rounding_notes(path, state, expected)]
    network.load_state_dict({network_names[name]: value for name, value in state.items()}, strict=False)
    return tuple(f"weights {path}: {note}" for note in notes)


def read_state(path: str | Path) -> State:
    """Tensors by name from a weights file: those under "state_dict" or "model" in it, or the one state dict that it
    holds. Raises InvalidInputError as `read_states` does, and where several could be meant."""
    states = read_states(path)
    key = _usual(states)
    if key is None:
        raise InvalidInputError(f"weights {path} hold several state dicts; choose one: {_choices(path, states)}")
    return states[key]


def saved_tensors(network: nn.Module) -> State:
    """The state dict of a network as it is saved: on the CPU, without the names of torch.compile and DataParallel, and
    one tensor for those that share memory, as safetensors' save_model has it."""
    state = network.state_dict()
    left_out: set[str] = set()
    copied: set[str] = set()
    for group in shared_memory(state):
        if group.whole:
            left_out |= group.names - {group.whole[0]}
        else:  # slices of memory that no tensor covers
            copied |= group.names
    return {
        plain: (state[name].clone() if name in copied else state[name]).detach().cpu().contiguous()
        for name, plain in plain_names(network).items()
        if name not in left_out
    }


def weights_digest(network: nn.Module) -> str:
    """A network's weights digest: sha256 over names, dtypes, shapes and values of parameters and buffers, by name."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        values = value.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {list(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data if values.numel() else b"")
    return digest.hexdigest()


def _usual(keys: dict[str, State] | dict[str, Fit]) -> str | None:
    """The key of the state dict that is meant where none is named: that under the usual keys, or the only one."""
    path = ""
    for key in USUAL:
        longer = f"{path}.{key}" if path else key
        path = longer if any(f"{name}.".startswith(f"{longer}.") for name in keys) else path
    if path in keys:
        return path
    return next(iter(keys)) if len(keys) == 1 else None


def _chosen(path: str | Path, fits: dict[str, Fit]) -> str:
    """The key of the state dict to load. Raises InvalidInputError where several fit."""
    usual, exact = _usual(fits), [key for key, fit in fits.items() if fit.is_exact]
    if usual is not None and (usual in exact or not exact):
        return usual
    if len(exact) > 1:
        raise InvalidInputError(
            f"weights {path} hold several state dicts that fit; choose one: {_choices(path, exact)}"
        )
    if exact:
        return exact[0]
    return min(fits, key=lambda key: len(fits[key].missing) + len(fits[key].unknown))


def _choices(path: str | Path, keys: dict[str, State] | list[str]) -> str:
    file, first = split_weights(path)
    return ", ".join(f"{file}#{key}" for key in list(keys)[:8] if key not in ("", first))


def _choice_notes(path: str | Path, fits: dict[str, Fit], key: str) -> Iterator[str]:
    file, asked = split_weights(path)
    if key not in ("", asked, *USUAL):
        yield f"of its state dicts {key} was taken"
    if others := [name for name, fit in fits.items() if fit.is_exact and name not in (key, "")]:
        yield f"it also holds {some(others)}: give {file}#{others[0]} for that"


def _misfit(
    path: str | Path, states: dict[str, State], key: str, fit: Fit, expected: dict[str, Tensor], noun: str
) -> InvalidInputError:
    """The error for names that do not fit: the missing, the unknown, those of another shape, and the next step."""
    state = {fit.names[name]: value for name, value in states[key].items() if name in fit.names}
    other_shapes = [name for name in sorted(expected.keys() & state.keys()) if _differs(expected[name], state[name])]
    kinds = {"missing": fit.missing, "unknown": fit.unknown, "of another shape": other_shapes}
    parts = [f"{len(names)} {kind} (first: {names[0]})" for kind, names in kinds.items() if names]
    file, asked = split_weights(path)
    place = f" under {key}" if key != asked else ""
    advice = _selection(f"{file}#{key}." if key else f"{file}#", states[key], expected)
    advice = advice or f"check --{noun} and --{noun}-set, or give its own weights"
    if len(states) > 1 and not advice.startswith("the names"):
        advice += f"; the file's state dicts are {_choices(path, list(states))}"
    text = f"weights {path} do not fit the network{place}: {', '.join(parts)}; {advice}"
    return InvalidInputError(f"{text}. In the file: {some(list(states[key]))}. In the network: {some(list(expected))}")


def _selection(start: str, state: State, expected: dict[str, Tensor]) -> str:
    """Advice to choose the names of one beginning, where just those fit; empty where none do."""
    heads = dict.fromkeys(
        ".".join(name.split(".")[:count]) for name in state for count in range(1, name.count(".") + 1)
    )
    for head in heads:
        part = [name[len(head) + 1 :] for name in state if name.startswith(f"{head}.")]
        if fit_names(part, expected).is_exact:
            return f"the names that begin with {head}. fit: give {start}{head}"
    return ""


def _differs(value: Tensor, other: Tensor) -> bool:
    return not is_lazy(value) and value.shape != other.shape


def _require_shapes(
    path: str | Path, state: State, expected: dict[str, Tensor], noun: str, subclasses: tuple[int, int]
) -> None:
    """Raises InvalidInputError for tensors of another shape."""
    if names := [name for name in sorted(state) if _differs(expected[name], state[name])]:
        sizes = {name: (list(state[name].shape), list(expected[name].shape)) for name in names}
        shown = [f"{name}: {here} in the file, {there} in the network" for name, (here, there) in sizes.items()]
        advice = _classes_advice(sizes, noun, *subclasses)
        advice = advice or f"check --{noun}-set, or give the weights of this network"
        raise InvalidInputError(
            f"weights {path} do not fit the network: {len(names)} of another shape ({'; '.join(shown[:4])}); {advice}"
        )


def _require_dtypes(path: str | Path, state: State, expected: dict[str, Tensor]) -> None:
    """Raises InvalidInputError for tensors of another kind of dtype than the network's (floating, complex, whole
    numbers and booleans), and for whole numbers that the network's dtype does not hold."""
    for name in sorted(state):
        value, stored, wanted = state[name], state[name].dtype, expected[name].dtype
        kinds = [(dtype.is_floating_point, dtype.is_complex) for dtype in (stored, wanted)]
        advice = ""
        if kinds[0] != kinds[1]:
            is_quantised = wanted.is_floating_point and not stored.is_complex and stored != torch.bool
            advice = "give weights that were not quantised" if is_quantised else "give weights of the network's dtypes"
        elif kinds[0] == (False, False) and not torch.equal(value.to(wanted).to(torch.int64), value.to(torch.int64)):
            advice = f"{_dtype(wanted)} does not hold its values, so give weights of the network's dtypes"
        if advice:
            raise InvalidInputError(
                f"weights {path} do not fit the network: {name} is {_dtype(stored)} in the file, {_dtype(wanted)} in "
                f"the network; {advice}"
            )


def _require_numbers(path: str | Path, state: State) -> None:
    """Raises InvalidInputError for weights that hold NaN, as those of a training that diverged. Buffers may hold
    infinities, which masks of attention are."""
    floats = {name: state[name] for name in sorted(state) if state[name].is_floating_point()}
    if names := [name for name, values in floats.items() if values.float().isnan().any()]:
        count, rows = int(floats[names[0]].float().isnan().sum()), floats[names[0]].numel()
        raise InvalidInputError(
            f"weights {path}: {count} of {rows} values of {names[0]} are NaN"
            + (f", and {len(names) - 1} more tensors hold some" if len(names) > 1 else "")
            + ": its training diverged, or the file is damaged; give those of an earlier epoch, or fetch it again"
        )


def _classes_advice(sizes: dict[str, tuple[list[int], list[int]]], noun: str, saved: int, subclasses: int) -> str:
    """Advice where one layer alone differs, and in its outputs alone: the network answers other classes."""
    pairs = {(stored[0], wanted[0]) for stored, wanted in sizes.values() if stored and wanted}
    is_last = all(stored and wanted and stored[1:] == wanted[1:] for stored, wanted in sizes.values())
    if not is_last or len(pairs) != 1 or len({name.rpartition(".")[0] for name in sizes}) > 1:
        return ""
    stored_count, count = pairs.pop()
    flag = f"--{noun}-set num_classes={stored_count}"
    if saved == subclasses == 1:
        return (
            f"the file answers {stored_count} classes, the network {count}: give {flag}, or weights of {count} classes"
        )
    flag = flag if saved == subclasses else f"--subclasses {saved}"
    return (
        f"the file answers {stored_count} logits ({saved} a class), the network {count} ({subclasses} a class): give "
        f"{flag}, or weights of {count} logits"
    )


def _require_one_value(path: str | Path, values: State, expected: State) -> None:
    """Raises InvalidInputError where the file has unequal tensors for weights that are one in the network."""
    first_names: dict[object, str] = {}
    for name, value in values.items():
        wanted = expected[name]
        first = first_names.setdefault((wanted.shape, wanted.stride(), wanted.storage_offset()), name)
        if not torch.equal(values[first], value):
            raise InvalidInputError(
                f"weights {path} do not fit the network: {first} and {name} are one tensor in the network, and "
                "differ in the file; give weights of a network that ties them too, or untie them in this one"
            )


def _rounding_notes(path: str | Path, state: State, expected: dict[str, Tensor]) -> Iterator[str]:
    """A note where floats of the file are wider than the network's. Raises InvalidInputError where one overflows."""
    wider = {}
    for name, value in state.items():
        dtype = expected[name].dtype
        if value.is_floating_point() and torch.finfo(value.dtype).bits > torch.finfo(dtype).bits:
            wider[name] = dtype
            if value.isfinite().all() and not value.to(dtype).isfinite().all():
                raise InvalidInputError(
                    f"weights {path} do not fit the network: {name} holds {float(value.abs().max()):.4g}, more than "
                    f"its {_dtype(dtype)} can hold; build the network in {_dtype(value.dtype)}, and give --precision"
                )
    if wider:
        name, dtype = next(iter(wider.items()))
        yield f"{len(wider)} tensors of {_dtype(state[name].dtype)} were rounded to the network's {_dtype(dtype)}"


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
