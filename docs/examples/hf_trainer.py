"""Hugging Face's Trainer: it iterates a Loader as it is, and the objective is its loss.

kdcache demo demo                    # makes demo/digits.kd
python hf_trainer.py --store demo/digits.kd --data digits --folder runs/hf
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint, set_seed

from kdcache import KD, Batch, FeedOptions, Loader, Objective, Store, open_data
from kdcache.networks import convnet

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--store", required=True, help="folder or address of a store")
parser.add_argument("--data", required=True, help="the data set that it was extracted from")
parser.add_argument("--folder", type=Path, required=True, help="where checkpoints are written")
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--workers", type=int, default=2)
parser.add_argument("--compile", action="store_true", help="by torch.compile")
parser.add_argument("--stop-after", type=int, help="epochs after which this process ends; start it again to go on")


class Distillation(Trainer):
    """A Trainer whose batches are kdcache's and whose loss is an objective."""

    def __init__(self, *args: Any, loader: Loader, val_loader: Loader, objective: Objective, **more: Any) -> None:
        super().__init__(*args, **more)
        self.loader, self.val_loader, self.objective = loader, val_loader, objective

    def get_train_dataloader(self) -> Loader:
        return self.loader

    def compute_loss(
        self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        logits = model(inputs.images)
        loss = self.objective(logits.float(), inputs)
        return (loss, {"logits": logits}) if return_outputs else loss

    def _prepare_inputs(self, inputs: Batch) -> Batch:
        return inputs.to(self.args.device)

    @torch.inference_mode()
    def evaluate(self, *args: Any, **more: Any) -> dict[str, float]:
        """The share of right answers on the validation rows."""
        self.model.eval()
        self.val_loader.set_epoch(0)
        batches = (batch.to(self.args.device) for batch in self.val_loader)
        right = sum((self.model(batch.images).argmax(1) == batch.y).sum().item() for batch in batches)
        metrics = {"eval_accuracy": right / len(self.val_loader.data)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class StopAfter(TrainerCallback):
    """Ends the training after some epochs."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_epoch_end(self, args: TrainingArguments, state: Any, control: Any, **more: Any) -> None:
        control.should_training_stop = round(state.epoch) >= self.epochs


def main(args: argparse.Namespace) -> None:
    set_seed(0)
    feed = FeedOptions(workers=args.workers)
    store, validation = Store.open(args.store), open_data(args.data, {"split": "test"})
    trainer = Distillation(
        convnet(width=8, channels=1, num_classes=store.identity.teacher.classes),
        TrainingArguments(
            output_dir=str(args.folder),
            num_train_epochs=args.epochs,
            learning_rate=1e-2,
            lr_scheduler_type="cosine",
            max_grad_norm=5.0,
            fp16=torch.cuda.is_available(),
            torch_compile=args.compile,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            report_to="none",
            remove_unused_columns=False,
        ),
        loader=Loader(open_data(args.data, {}), [store], batch_size=128, epochs=args.epochs, feed=feed),
        eval_dataset=validation,
        val_loader=Loader(validation, batch_size=256, epochs=1, feed=feed),
        objective=Objective(KD(temperature=2.0), w_ce=0.1, w_kd=0.9),
        callbacks=[StopAfter(args.stop_after)] if args.stop_after else [],
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(args.folder) if args.folder.exists() else None)
    print(f"epoch {trainer.state.epoch:.0f} of {args.epochs}: accuracy {trainer.evaluate()['eval_accuracy']:.3f}")


if __name__ == "__main__":
    main(parser.parse_args())
