"""PyTorch Lightning's Trainer, with a Loader as its data loader.

kdcache demo demo                    # makes demo/digits.kd
python lightning_trainer.py --store demo/digits.kd --data digits --folder runs/lightning
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch

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


class Student(L.LightningModule):
    """A student and its objective. Lightning moves batches by `Batch.to`."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.network = convnet(width=8, channels=1, num_classes=classes)
        self.objective = Objective(KD(temperature=2.0), w_ce=0.1, w_kd=0.9)

    def training_step(self, batch: Batch, number: int) -> torch.Tensor:
        loss = self.objective(self.network(batch.images).float(), batch)
        self.log("loss", loss, prog_bar=True, batch_size=len(batch.y))
        return loss

    def validation_step(self, batch: Batch, number: int) -> None:
        right = (self.network(batch.images).argmax(1) == batch.y).float().mean()
        self.log("accuracy", right, prog_bar=True, batch_size=len(batch.y))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=2e-3)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class EpochOfTrainer:
    """The batches of the epoch that the trainer is in, however often it begins to iterate."""

    def __init__(self, loader: Loader, trainer: L.Trainer) -> None:
        self.loader, self.trainer = loader, trainer

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        self.loader.set_epoch(self.trainer.current_epoch)  # at the first batch: by then a resumed trainer knows it
        yield from self.loader


class StopAfter(L.Callback):
    """Ends the training after some epochs."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


def main(args: argparse.Namespace) -> None:
    L.seed_everything(0)
    store = Store.open(args.store)
    student = Student(store.identity.teacher.classes)
    if args.compile:
        student.network.compile()
    trainer = L.Trainer(
        max_epochs=args.epochs,
        default_root_dir=args.folder,
        accelerator="auto",
        devices=1,
        precision="16-mixed" if torch.cuda.is_available() else "32-true",
        gradient_clip_val=5.0,
        num_sanity_val_steps=0,
        callbacks=[
            L.pytorch.callbacks.ModelCheckpoint(args.folder, filename="{epoch}", save_last=True, save_top_k=1),
            *([StopAfter(args.stop_after)] if args.stop_after else []),
        ],
        logger=False,
    )
    feed, last = FeedOptions(workers=args.workers), args.folder / "last.ckpt"
    loader = Loader(open_data(args.data, {}), [store], batch_size=128, epochs=args.epochs, feed=feed)
    val_loader = Loader(open_data(args.data, {"split": "test"}), batch_size=256, epochs=args.epochs, feed=feed)
    loaders = [EpochOfTrainer(loader, trainer), EpochOfTrainer(val_loader, trainer)]
    trainer.fit(student, *loaders, ckpt_path=last if last.exists() else None)
    print(f"epoch {trainer.current_epoch} of {args.epochs}: accuracy {trainer.callback_metrics['accuracy']:.3f}")


if __name__ == "__main__":
    main(parser.parse_args())
