"""One training's lifetime: network, optimiser, averaged weights, metrics and checkpoints."""

import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kdcache.base.memory import peak_rss_bytes
from kdcache.base.records import Record
from kdcache.networks.precision import autocast
from kdcache.objectives.batch import Batch
from kdcache.objectives.objective import Objective, Phases
from kdcache.pipelines.settings import TrainSettings
from kdcache.store.plan import key_word
from kdcache.training.data_parallel import DataParallel
from kdcache.training.finite_loss import FiniteLossCheck
from kdcache.training.loader import Loader
from kdcache.training.optimisers import build_optimizer, rate_schedule
from kdcache.training.ranks import Ranks
from kdcache.training.run_folder import append_metrics, keep_metrics, read_metrics, save_state, save_weights


class TrainSummary(Record):
    """The summary that `kdcache train` prints at its end. `validation` holds the measures of `metrics.Validation`.
    `peak_memory_bytes` is the largest resident size of the main process, loader workers not counted. `processes` is the
    number of processes that trained last."""

    run: str
    epochs: int
    steps: int
    loss: float
    validation: dict[str, float]
    best_accuracy: float | None
    seconds: float
    drift_levels: float | None
    weights: str
    peak_memory_bytes: int | None
    processes: int


class Run:
    """One training's lifetime: network, objective, optimiser, averaged weights, and the steps done. `metadata` goes
    into the weights files. With several processes (`ranks`) each has all of these, and the first one writes."""

    def __init__(
        self,
        network: nn.Module,
        objective: Objective | Phases,
        settings: TrainSettings,
        loader: Loader,
        folder: Path,
        state: dict[str, Any] | None,
        metadata: dict[str, str],
        ranks: Ranks | None = None,
    ) -> None:
        self.ranks = ranks or Ranks()
        self.network, self.objective = network.train(), objective
        self.settings, self.loader, self.folder, self.metadata = settings, loader, folder, metadata
        self.steps_total = sum(loader.steps(epoch) for epoch in range(settings.epochs))
        self.optimizer = build_optimizer(
            nn.ModuleList([network, objective]),
            settings.optimizer,
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        epoch_steps = self.steps_total / settings.epochs
        self.multiplier = rate_schedule(
            settings.schedule,
            steps=self.steps_total,
            warmup=round(settings.warmup_epochs * epoch_steps),
            milestones=[round(epoch * epoch_steps) for epoch in sorted(settings.step_epochs)],
            factor=settings.step_factor,
        )
        averaging = get_ema_multi_avg_fn(settings.ema)  # type: ignore[no-untyped-call]
        self.ema = AveragedModel(network, multi_avg_fn=averaging, use_buffers=True) if settings.ema else None
        self.scaler = torch.amp.GradScaler(loader.device, enabled=settings.precision == "float16")
        self.loss_sum = torch.zeros((), device=loader.device)
        self.watch = FiniteLossCheck(loader.device)
        self.steps_done, self.best = 0, -1.0
        self.start = (0, 0)  # epoch and step of the first batch that this run takes
        self._set_rate()
        if state is not None:
            self._restore(state)
        self.metrics = self._begin_metrics(0 if state is None else state["epoch"])
        self._set_generators(state)
        with autocast(settings.precision, loader.device):
            self.parallel = DataParallel(network, objective, self.ranks, loader.one_view)

    @property
    def eval_network(self) -> nn.Module:
        """The network that is validated and saved: the averaged one where there is one."""
        return self.network if self.ema is None else self.ema.module

    def step(self, batch: Batch) -> None:
        """One optimiser step on a batch."""
        with autocast(self.settings.precision, self.loader.device):
            logits = self.parallel.answer(batch.images)
        loss, loss_part = self.parallel.loss(logits.float(), batch)
        if len(logits):
            with self.ranks.holding():  # other processes wait for this one's gradients, even if NaN
                self.watch.add(batch, logits, loss)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.parallel.finish_backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update_parameters(self.network)
        self.loss_sum += loss_part
        self.steps_done += 1
        self._set_rate()

    def _set_rate(self) -> None:
        """Set the learning rate of the next step."""
        rate = self.settings.lr * self.multiplier(self.steps_done)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def end_epoch(self, epoch: int, validation: dict[str, float], seconds: float) -> None:
        """Write the epoch's metrics, weights and checkpoint."""
        self._check()  # before anything is written: a run of NaN must not count as finished
        loss = float(self.ranks.sum(self.loss_sum)) / self.loader.steps(epoch)
        drift_levels = self.ranks.largest(-1.0 if self.loader.drift is None else self.loader.drift.levels)
        line = {
            "epoch": epoch,
            "loss": loss,
            "lr": self.optimizer.param_groups[0]["lr"],
            **validation,
            **({} if drift_levels < 0 else {"drift_levels": drift_levels}),
            "seconds": seconds,
        }
        self.metrics.append(line)
        # where nothing is validated, the last epoch is the best
        is_best = "accuracy" not in validation or validation["accuracy"] > self.best
        self.best = validation.get("accuracy", self.best) if is_best else self.best
        if self.ranks.first:
            with self.ranks.holding():
                self._write_epoch(line, is_best=is_best)
        self.loss_sum.zero_()
        self.save(epoch + 1, 0)

    def _write_epoch(self, line: dict[str, Any], *, is_best: bool) -> None:
        for name in ("last", "best") if is_best else ("last",):
            save_weights(self.folder / f"weights/{name}.safetensors", self.eval_network, metadata=self.metadata)
        append_metrics(self.folder, line)
        _to_tensorboard(self.folder, line)

    def save(self, epoch: int, step: int) -> None:
        """Write the checkpoint from which `epoch` goes on at `step`."""
        self._check()
        self.loss_sum.copy_(self.ranks.sum(self.loss_sum))
        rank_states = self.ranks.gather(_generator_states(self.loader.device))[1:]
        if self.ranks.first:
            with self.ranks.holding():
                save_state(self.folder, self._state(epoch, step, rank_states))
        else:
            self.loss_sum.zero_()  # the first process has it all now

    def _check(self) -> None:
        """Raises on all processes the error of one: its watch found it, or it could not write the epoch."""
        self.ranks.together(self.watch.check)

    def _state(self, epoch: int, step: int, rank_states: list[bytes]) -> dict[str, Any]:
        state = {
            "epoch": epoch,
            "step": step,
            "steps_done": self.steps_done,
            "best": self.best,
            "loss_sum": self.loss_sum,
            "network": self.network.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "generator": torch.get_rng_state(),
            "cuda_generators": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        return state | {"other_ranks": [_load(data) for data in rank_states]} if rank_states else state

    def _restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        if self.ranks.first:
            self.loss_sum = state["loss_sum"].to(self.loader.device)
        self.steps_done, self.best = state["steps_done"], state["best"]
        self.start = (state["epoch"], state["step"])

    def _begin_metrics(self, epochs: int) -> list[dict[str, Any]]:
        """The metrics of the epochs that are done, read by the first process for all; a killed run's later lines go."""

        def epoch_lines() -> list[dict[str, Any]]:
            if self.ranks.first:
                keep_metrics(self.folder, epochs)
            return read_metrics(self.folder) if self.ranks.first else []

        text = json.dumps(self.ranks.together(epoch_lines))
        lines: list[dict[str, Any]] = json.loads(self.ranks.from_first(text.encode()))
        return lines

    def _set_generators(self, state: dict[str, Any] | None) -> None:
        """Restore the generators of the checkpoint; a process that it does not know gets a seed unlike the others'."""
        states = None if state is None else [state, *state.get("other_ranks", [])]
        if states is not None and self.ranks.rank < len(states):
            generators = states[self.ranks.rank]
            torch.set_rng_state(generators["generator"])
            if generators["cuda_generators"] and torch.cuda.is_available():
                torch.cuda.set_rng_state_all(generators["cuda_generators"])
        elif not self.ranks.first:
            torch.manual_seed(key_word(self.settings.seed, self.ranks.rank, self.steps_done, "rank") >> 1)

    def summary(self) -> TrainSummary:
        """The summary of the run as it stands."""
        last_line = self.metrics[-1] if self.metrics else {}
        columns = {"epoch", "loss", "lr", "seconds", "drift_levels"}
        return TrainSummary(
            run=str(self.folder),
            epochs=self.settings.epochs,
            steps=self.steps_done,
            loss=last_line.get("loss", float("nan")),
            validation={name: value for name, value in last_line.items() if name not in columns},
            best_accuracy=self.best if self.best > 0 else None,
            seconds=sum(line["seconds"] for line in self.metrics),
            drift_levels=max((line["drift_levels"] for line in self.metrics if "drift_levels" in line), default=None),
            weights=str(self.folder / "weights/last.safetensors"),
            peak_memory_bytes=peak_rss_bytes(),
            processes=self.ranks.world_size,
        )


def _generator_states(device: str) -> bytes:
    """The states of this process's generators, as a file of torch."""
    cuda = torch.cuda.get_rng_state_all() if torch.device(device).type == "cuda" else []
    data = io.BytesIO()
    torch.save({"generator": torch.get_rng_state(), "cuda_generators": cuda}, data)
    return data.getvalue()


def _load(data: bytes) -> dict[str, Any]:
    states: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True)
    return states


def _to_tensorboard(folder: Path, line: dict[str, Any]) -> None:
    """Write the epoch's numbers for TensorBoard, where it is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return
    with SummaryWriter(folder / "tensorboard") as writer:
        for name, value in line.items():
            if name != "epoch":
                writer.add_scalar(name, value, line["epoch"])
