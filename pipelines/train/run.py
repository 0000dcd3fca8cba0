"""One training's lifetime: it begins or goes on from a checkpoint, takes steps, ends epochs and saves itself."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdcache.base.folder_lock import Hold
from kdcache.base.memory import peak_rss_bytes
from kdcache.networks.compiling import naming_compiler
from kdcache.networks.precision import autocast
from kdcache.objectives.batch import Batch
from kdcache.objectives.selection import Selection
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.epoch_end import (
    Announce,
    EpochEnd,
    is_validated,
    selected_by_epoch,
    selected_columns,
    unannounced,
)
from kdcache.pipelines.train.rank_generators import generator_states, restore_generators, seed_generators
from kdcache.pipelines.train.rates import rate_multiplier
from kdcache.pipelines.train.run_files import RunFiles
from kdcache.pipelines.train.summary import TrainSummary
from kdcache.pipelines.train.training_state import Student, TrainingState, unweighed
from kdcache.training.batch_parts import parts_of
from kdcache.training.batch_stream import BatchStream
from kdcache.training.data_parallel import DataParallel
from kdcache.training.finite_loss import FiniteLossCheck
from kdcache.training.ranks import Ranks
from kdcache.training.run_folder import STATE, UNJUDGED, no_checkpoint, save_state
from kdcache.training.view_drawing import served_share

KEYS = {"step", "steps_done", "best", "loss_sum", "network", "objective", "optimizer", "scaler", "ema"}
WEIGHTS = "weights"  # key in a checkpoint: the sha256 of the weights files


class Run:
    """One training's lifetime: the state that steps change, the steps done, and the files that it writes. With several
    processes (`ranks`) each has all of these, and the first one writes. Made by `begin` or `resume`."""

    def __init__(
        self,
        settings: TrainSettings,
        state: TrainingState,
        loader: BatchStream,
        files: RunFiles,
        parallel: DataParallel,
    ) -> None:
        self.settings, self.state, self.loader, self.files = settings, state, loader, files
        self.parallel, self.ranks = parallel, parallel.ranks
        self.network, self.optimizer, self.scaler, self.ema = state.network, state.optimizer, state.scaler, state.ema
        self.steps_total = sum(loader.steps(epoch) for epoch in range(settings.epochs))
        self.multiplier = rate_multiplier(settings, self.steps_total)
        self.weigh: Callable[[Batch], Batch] = unweighed
        self.loss_sum = torch.zeros((), device=loader.device)
        self.watch = FiniteLossCheck(loader.device)
        self.steps_done, self.best = 0, -1.0
        self.steps_before = 0  # of a run that goes on
        self.start = (0, 0)  # epoch and step of the first batch that this run takes
        self.unjudged: dict[str, Any] | None = None  # metrics of an epoch that is trained and not validated yet
        self.announce: Announce = unannounced
        self.notes: list[str] = []  # for the user, on what it learns from and on its files
        self._resumed = self._was_resumed = False

    @classmethod
    def begin(
        cls,
        student: Student,
        loader: BatchStream,
        metadata: dict[str, str],
        ranks: Ranks | None = None,
        hold: Hold | None = None,
    ) -> "Run":
        """A run before its first step. Its folder's metrics begin anew; `metadata` goes into the weights files."""
        settings, ranks = student.settings, ranks or Ranks()
        state = TrainingState.of(student, loader.device)
        files = RunFiles.open(Path(settings.run), metadata, ranks, epochs=0, hold=hold)
        seed_generators(ranks, settings.seed, 0)
        run = cls(settings, state, loader, files, _parallel(state, settings, loader, ranks))
        run._set_rate()
        run.weigh = student.weigh
        run.notes += student.notes
        return run

    @classmethod
    def resume(
        cls,
        student: Student,
        loader: BatchStream,
        metadata: dict[str, str],
        checkpoint: dict[str, Any],
        ranks: Ranks | None = None,
        hold: Hold | None = None,
    ) -> "Run":
        """A run as `checkpoint` has it. Metrics of epochs that will run again are taken out of its folder."""
        settings, ranks = student.settings, ranks or Ranks()
        state = TrainingState.of(student, loader.device)
        if missing := sorted(KEYS - checkpoint.keys()):
            raise no_checkpoint(Path(settings.run) / STATE, f"it lacks {', '.join(missing)}")
        state.load_state_dict(checkpoint)
        epochs = checkpoint["epoch"] - (UNJUDGED in checkpoint)
        files = RunFiles.open(Path(settings.run), metadata, ranks, epochs=epochs, hold=hold)
        files.digests.update(checkpoint.get(WEIGHTS, {}))
        restore_generators(checkpoint, ranks, settings.seed)
        run = cls(settings, state, loader, files, _parallel(state, settings, loader, ranks))
        if ranks.first:
            run.loss_sum = checkpoint["loss_sum"].to(loader.device)
        run.steps_done, run.best = checkpoint["steps_done"], checkpoint["best"]
        run.steps_before = run.steps_done
        run.start = (checkpoint["epoch"], checkpoint["step"])
        run.unjudged, run._resumed = checkpoint.get(UNJUDGED), True
        run._was_resumed = True
        run.weigh = student.weigh
        if epochs >= settings.epochs:
            run.notes.append(f"{settings.run} was finished before: nothing was trained")
        return run

    @property
    def is_new(self) -> bool:
        """True before the first step of a run that no checkpoint was read for."""
        return self.steps_done == 0 and not self._was_resumed

    @property
    def selection(self) -> Selection | None:
        """The policy that switches terms of the objective on and off, where there is one."""
        return getattr(self.state.objective, "selection", None)

    @property
    def eval_network(self) -> nn.Module:
        """The network that is validated and saved: the averaged one where there is one."""
        return self.network if self.ema is None else self.ema.module

    def step(self, batch: Batch) -> None:
        """One optimiser step on a batch."""
        batch = self.weigh(batch)
        self.optimizer.zero_grad(set_to_none=True)
        for part in parts_of(batch, self.settings.accumulate):
            self._add_gradient(part, batch)
        self.parallel.finish_backward()
        if self.settings.clip_grad:
            self.scaler.unscale_(self.optimizer)
            parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.settings.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update_parameters(self.network)
        self.steps_done += 1
        self._set_rate()

    def _add_gradient(self, part: Batch, batch: Batch) -> None:
        """Add the gradient of a part of a batch, and its part of the loss."""
        compiling = naming_compiler() if self.settings.compile else nullcontext()
        with compiling, autocast(self.settings.precision, self.loader.device):
            outputs = self.parallel.outputs(part.images)
        loss, loss_part = self.parallel.loss(outputs, part, batch)
        if len(outputs.logits):
            with self.ranks.holding():  # other processes wait for this one's gradients, even if NaN
                self.watch.add(part, outputs.logits, loss)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.loss_sum += loss_part

    def _set_rate(self) -> None:
        """Set the learning rate of the next step."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(self.steps_done)

    def _rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.settings.lr * self.multiplier(step)

    @property
    def is_to_be_validated(self) -> bool:
        """True where an epoch has ended after which the validation split is measured."""
        return self.unjudged is not None and self.settings.is_validated(self.unjudged["epoch"])

    def end_epoch(self, epoch: int, seconds: float) -> None:
        """Note the epoch's metrics. Where it will be validated, write the checkpoint first: whatever happens to the
        validation, the epoch is not lost."""
        self._check()  # before anything is written: a run of NaN must not count as finished
        drift_levels = self.ranks.largest(-1.0 if self.loader.drift is None else self.loader.drift.levels)
        self.unjudged = {
            "epoch": epoch,
            "loss": float(self.ranks.sum(self.loss_sum)) / self.loader.steps(epoch),
            "lr": self._rate(self.steps_done - 1),
            **({} if drift_levels < 0 else {"drift_levels": drift_levels}),
            **({} if self.selection is None else selected_columns(self.selection.take_shares())),
            "seconds": seconds,
        }
        self.loss_sum.zero_()
        if self.is_to_be_validated:
            self.save(epoch + 1, 0)

    def judge(self, validation: dict[str, float], seconds: float) -> None:
        """Write the metrics and weights of the epoch that has ended, validated in `seconds`, and the checkpoint."""
        assert self.unjudged is not None
        # where nothing is validated, or no row has a label, the last epoch is the best; one between is not measured
        is_measured = self.is_to_be_validated or not self.settings.validates
        metrics, self.unjudged = dict(self.unjudged), None
        names = ("epoch", "loss", "lr")
        line = {**{name: metrics.pop(name) for name in names}, **validation, **metrics}
        line["seconds"] += seconds
        is_best = is_measured and ("accuracy" not in validation or validation["accuracy"] > self.best)
        self.best = validation.get("accuracy", self.best) if is_best else self.best
        if self.ranks.first:
            with self.ranks.holding():
                is_kept = line["epoch"] + 1 in self.settings.keep_epochs
                self.files.write_epoch(line, self.eval_network, is_best=is_best, is_kept=is_kept)
        self.files.metrics.append(line)
        self.save(line["epoch"] + 1, 0)
        if self.ranks.first:
            with self.ranks.holding():
                best_accuracy = self.best if self.best > 0 else None
                self.announce(EpochEnd(line=line, epochs=self.settings.epochs, best_accuracy=best_accuracy))

    def look_at_weights(self) -> None:
        """Look at the weights files of a run that was resumed, once, and write again what is lost and still known."""
        if not self._resumed:
            return
        self._resumed, is_lost = False, False
        if self.ranks.first:
            with self.ranks.holding():
                self.files.require_held()
                notes, is_lost = self.files.mend(
                    self.eval_network, self.best, at_epoch_end=self.start[1] == 0, is_measured=self._last_is_measured()
                )
                self.notes += [*notes, *self.files.lost_epochs(self.settings.keep_epochs)]
        if self.ranks.largest(float(is_lost)) > 0:
            self.best = -1.0

    def _last_is_measured(self) -> bool:
        """False where the last epoch that ended was not validated, though others are."""
        metrics = self.files.metrics
        return not self.settings.validates or (bool(metrics) and any(map(is_validated, metrics[-1])))

    def save(self, epoch: int, step: int) -> None:
        """Write the checkpoint from which `epoch` goes on at `step`."""
        self._check()
        self.loss_sum.copy_(self.ranks.sum(self.loss_sum))
        checkpoint = {
            "epoch": epoch,
            "step": step,
            "steps_done": self.steps_done,
            "best": self.best,
            "loss_sum": self.loss_sum,
            **self.state.state_dict(),
            **generator_states(self.ranks, self.loader.device),
            **({"equal_steps": True} if self.loader.equal_steps else {}),  # absent in runs from before that rule
            **({UNJUDGED: self.unjudged} if self.unjudged else {}),
            **({WEIGHTS: dict(self.files.digests)} if self.files.digests else {}),
        }
        if self.ranks.first:
            with self.ranks.holding():
                self.files.require_held()
                save_state(self.files.folder, checkpoint)
        else:
            self.loss_sum.zero_()  # the first process has it all now

    def _check(self) -> None:
        """Raises on all processes the error of one: its watch found it, or it could not write the epoch."""
        self.ranks.together(self.watch.check)

    def summary(self) -> TrainSummary:
        """The summary of the run as it stands."""
        folder, metrics = self.files.folder, self.files.metrics
        last_line = metrics[-1] if metrics else {}
        return TrainSummary(
            run=str(folder),
            epochs=self.settings.epochs,
            steps=self.steps_done,
            steps_before=self.steps_before,
            loss=last_line.get("loss", float("nan")),
            validation={name: value for name, value in last_line.items() if is_validated(name)},
            best_accuracy=self.best if self.best > 0 else None,
            seconds=sum(line["seconds"] for line in metrics),
            drift_levels=max((line["drift_levels"] for line in metrics if "drift_levels" in line), default=None),
            weights=str(folder / "weights/last.safetensors"),
            peak_memory_bytes=peak_rss_bytes(),
            processes=self.ranks.world_size,
            selected=selected_by_epoch(metrics),
            served=served_share(self.loader.drawings),
            notes=tuple(dict.fromkeys(self.notes)),
        )


def _parallel(state: TrainingState, settings: TrainSettings, loader: BatchStream, ranks: Ranks) -> DataParallel:
    """Network and objective as a step uses them, tried under its precision. The first process's weights reach all."""
    with autocast(settings.precision, loader.device):
        return DataParallel(state.network, state.objective, ranks, lambda: next(iter(loader.spread_views(1).values())))
