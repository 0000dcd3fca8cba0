"""The processes that torchrun started: the group in which they know each other, and the device of each."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from kdcache.base.devices import default_device
from kdcache.base.launch import Launch, launched
from kdcache.errors import InvalidInputError, KdcacheError
from kdcache.training.ranks import Ranks

PATIENCE = timedelta(minutes=30)  # a first view that comes from afar may take one process much longer than another


def own_device(name: str) -> str:
    """The device of this process. Each of several takes the CUDA device of its number on the machine. Raises
    InvalidInputError where there is none."""
    launch, device = launched(), name or default_device()
    kind, _, number = device.partition(":")
    if launch.world_size == 1 or kind == "cpu":
        return device
    message = f"device {device} was given for {launch.world_size} processes"
    if kind != "cuda":
        raise InvalidInputError(f"{message}; they can use cuda or cpu: give --device cpu")
    if number:
        raise InvalidInputError(f"{message}; each takes one of its own: give --device cuda")
    count = torch.cuda.device_count()
    if count == 1 and os.environ.get("CUDA_VISIBLE_DEVICES"):  # the scheduler shows each process its own
        return "cuda:0"
    if launch.local_rank >= count:
        raise InvalidInputError(
            f"this is process {launch.local_rank} of its machine, which has {count} CUDA devices; start at most "
            f"--nproc-per-node {count}, or give --device cpu"
        )
    return f"cuda:{launch.local_rank}"


@contextmanager
def open_ranks(device: str) -> Iterator[Ranks]:
    """The processes that torchrun started, joined to one group; this one alone where torchrun started none. Raises
    KdcacheError where they do not find each other."""
    launch = launched()
    if launch.world_size == 1:
        yield Ranks()
        return
    owns_group = not dist.is_initialized()
    if owns_group:
        _join(device, launch)
    try:
        control: Any = dist.new_group(timeout=PATIENCE, backend="gloo")
        yield Ranks(launch, control)
    except KdcacheError:  # after any other error this process is alone with it, and closing may wait for the others
        _leave(owns_group)
        raise
    _leave(owns_group)


def _join(device: str, launch: Launch) -> None:
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=PATIENCE)
    except RuntimeError as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        reason = str(error).partition("\n")[0]
        raise KdcacheError(
            f"process {launch.rank} of {launch.world_size} did not find the others at {address}: {reason}; start all "
            "of them with the same torchrun command"
        ) from error


def _leave(owns_group: bool) -> None:
    if owns_group:
        dist.destroy_process_group()
