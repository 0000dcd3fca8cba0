"""The processes of one training, which tell each other their state: all go on, stop or fail at the same step."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kdcache.base.launch import ALONE, Launch
from kdcache.base.progress import StopRequest
from kdcache.errors import InterruptedRunError, KdcacheError

T = TypeVar("T")


class OtherRankError(KdcacheError):
    """Another process of the training failed; message and exit code are that process's."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Ranks:
    """This process among all of a training. Alone, it does everything here by itself.

    The default group carries tensors of the device. The group `control` carries words between the processes, on gloo,
    which waits for no accelerator. All processes must call the same methods in the same order.
    """

    def __init__(self, launch: Launch | None = None, control: "dist.ProcessGroup | None" = None) -> None:
        self.launch = launch or ALONE
        self.rank, self.world_size = self.launch.rank, self.launch.world_size
        self._control = control
        self._error: Exception | None = None

    @property
    def alone(self) -> bool:
        return self.world_size == 1

    @property
    def first(self) -> bool:
        """True for the process that writes."""
        return self.rank == 0

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Keep an error back until all processes hear of it in `agree`: the others may be waiting for this one."""
        try:
            yield
        except Exception as error:
            if self.alone:
                raise
            self._error = self._error or error

    def agree(self, stop: bool = False) -> bool:
        """True where any process was asked to stop. Raises on all of them the error that one of them holds back."""
        if self.alone:
            return stop
        flags = torch.tensor([self._error is not None, stop], dtype=torch.int32)
        dist.all_reduce(flags, dist.ReduceOp.MAX, group=self._control)
        if flags[0]:
            self._fail()
        return bool(flags[1])

    def together(self, work: Callable[[], T]) -> T:
        """The result of `work` on this process, once all have done theirs. An error on one is raised on all."""
        results: list[T] = []
        with self.holding():
            results.append(work())
        self.agree()
        return results[0]

    def stopping(self, stop: StopRequest) -> StopRequest:
        """A request that all processes see at the same step; see `each`."""
        return stop if self.alone else AgreedStop(stop, self)

    def each(self, batches: Iterable[T], stop: StopRequest) -> Iterator[T]:
        """Batches, each one once all processes have theirs; `stop` as from `stopping`."""
        rest = iter(batches)
        while not self.alone:
            head: list[T] = []
            with self.holding():
                head.extend(islice(rest, 1))
            assert isinstance(stop, AgreedStop)
            stop.requested |= self.agree(stop.request.requested)
            if not head:
                return
            yield head[0]
        yield from rest

    def from_first(self, data: bytes) -> bytes:
        """The first process's bytes, on all of them."""
        if self.alone:
            return data
        size = torch.tensor([len(data)])
        dist.broadcast(size, 0, group=self._control)
        buffer = _tensor(data) if self.first else torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(buffer, 0, group=self._control)
        return buffer.numpy().tobytes()

    def gather(self, data: bytes) -> list[bytes]:
        """Every process's bytes, on all of them, by rank."""
        if self.alone:
            return [data]
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        dist.all_gather(sizes, torch.tensor([len(data)]), group=self._control)
        message = torch.zeros(max(int(size) for size in sizes), dtype=torch.uint8)
        message[: len(data)] = _tensor(data)
        buffers = [torch.empty_like(message) for _ in sizes]
        dist.all_gather(buffers, message, group=self._control)
        return [buffer.numpy()[: int(size)].tobytes() for buffer, size in zip(buffers, sizes, strict=True)]

    def sum(self, values: Tensor) -> Tensor:
        """The sum [...] of all processes' values, in f64 on the CPU."""
        total = values.detach().cpu().to(torch.float64, copy=True)
        if not self.alone:
            dist.all_reduce(total, group=self._control)
        return total

    def largest(self, value: float) -> float:
        """The largest of all processes' values."""
        largest = torch.tensor([value], dtype=torch.float64)
        if not self.alone:
            dist.all_reduce(largest, dist.ReduceOp.MAX, group=self._control)
        return float(largest)

    def mean_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give parameters the mean of all processes' gradients; one that has a gradient nowhere keeps none."""
        for parameter in parameters:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            sums = torch.cat([gradient.flatten(), gradient.new_full((1,), float(parameter.grad is not None))])
            dist.all_reduce(sums)
            if sums[-1] > 0:
                parameter.grad = (sums[:-1] / self.world_size).reshape(parameter.shape)

    def align_buffers(self, network: nn.Module) -> None:
        """Give every process the first one's buffers: batch norm's statistics are each process's own."""
        if not self.alone:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)

    def gather_rows(self, rows: Tensor) -> list[Tensor]:
        """All processes' rows, tensors of one shape on the device, by rank."""
        tensors = [torch.empty_like(rows) for _ in range(self.world_size)]
        dist.all_gather(tensors, rows)
        return tensors

    def _fail(self) -> None:
        error, self._error = self._error, None
        record = None if error is None else [_text(error), getattr(error, "exit_code", 2)]
        records = [json.loads(data) for data in self.gather(json.dumps(record).encode())]
        rank = next(rank for rank, entry in enumerate(records) if entry is not None)
        if error is None or rank != self.rank:
            message, exit_code = records[rank]
            error = OtherRankError(f"rank {rank}: {message}", exit_code)
        if isinstance(error, KdcacheError):
            error.told_elsewhere = self.launch.local_rank > 0
        raise error


class AgreedStop(StopRequest):
    """A request to stop that all processes know of; `request` is the one made to this process."""

    def __init__(self, request: StopRequest, ranks: Ranks) -> None:
        super().__init__()
        self.request, self._ranks = request, ranks

    def check(self, advice: str) -> None:
        """Raises InterruptedRunError once a stop has been agreed on, or the error that a process holds back."""
        if not self.requested:
            return
        self._ranks.agree()  # the checkpoint is written, or else the first process says why not
        try:
            super().check(advice)
        except InterruptedRunError as error:
            error.told_elsewhere = self._ranks.launch.local_rank > 0
            raise


def _text(error: Exception) -> str:
    return str(error) if isinstance(error, KdcacheError) else f"{type(error).__name__}: {error}"


def _tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
