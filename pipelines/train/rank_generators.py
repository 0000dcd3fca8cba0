"""The generators of a training's processes in a checkpoint: those of the first, and beside them those of the others."""

import io
from typing import Any

import torch

from kdcache.store.plan import key_word
from kdcache.training.ranks import Ranks


def generator_states(ranks: Ranks, device: str) -> dict[str, Any]:
    """The entries of a checkpoint that hold the generators; the first process gets them whole."""
    states = {
        "generator": torch.get_rng_state(),
        "cuda_generators": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    other_states = [_from_bytes(data) for data in ranks.gather(_to_bytes(device))[1:]]
    return {**states, "other_ranks": other_states} if other_states else states


def restore_generators(state: dict[str, Any], ranks: Ranks, seed: int) -> None:
    """Restore this process's generators from a checkpoint; a process that it does not know gets a seed of its own."""
    states = [state, *state.get("other_ranks", [])]
    if ranks.rank >= len(states):
        seed_generators(ranks, seed, state["steps_done"])
        return
    generators = states[ranks.rank]
    torch.set_rng_state(generators["generator"])
    if generators["cuda_generators"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(generators["cuda_generators"])


def seed_generators(ranks: Ranks, seed: int, steps_done: int) -> None:
    """Seed this process's generators unlike those of the others; the first keeps those that it has."""
    if not ranks.first:
        torch.manual_seed(key_word(seed, ranks.rank, steps_done, "rank") >> 1)


def _to_bytes(device: str) -> bytes:
    """The states of this process's generators, as a file of torch."""
    cuda = torch.cuda.get_rng_state_all() if torch.device(device).type == "cuda" else []
    data = io.BytesIO()
    torch.save({"generator": torch.get_rng_state(), "cuda_generators": cuda}, data)
    return data.getvalue()


def _from_bytes(data: bytes) -> dict[str, Any]:
    states: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True)
    return states
