"""Hugging Face Accelerate: your own loop; device, precision, clipping and checkpoints are Accelerate's.

kdcache demo demo                    # makes demo/digits.kd
python accelerate_loop.py --store demo/digits.kd --data digits --folder runs/accelerate
"""

import argparse
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from kdcache import KD, FeedOptions, Loader, Objective, Store, open_data
from kdcache.networks import convnet

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--store", required=True, help="folder or address of a store")
parser.add_argument("--data", required=True, help="the data set that it was extracted from")
parser.add_argument("--folder", type=Path, required=True, help="where the checkpoint is written")
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--workers", type=int, default=2)
parser.add_argument("--compile", action="store_true", help="by torch.compile")
parser.add_argument("--stop-after", type=int, help="epochs after which this process ends; start it again to go on")


def main(args: argparse.Namespace) -> None:
    set_seed(0)
    accelerator = Accelerator(mixed_precision="fp16" if torch.cuda.is_available() else "no")
    feed = FeedOptions(workers=args.workers, device=str(accelerator.device))
    store = Store.open(args.store)
    loader = Loader(open_data(args.data, {}), [store], batch_size=128, epochs=args.epochs, feed=feed)
    val_loader = Loader(open_data(args.data, {"split": "test"}), batch_size=256, epochs=args.epochs, feed=feed)

    network = convnet(width=8, channels=1, num_classes=store.identity.teacher.classes)
    if args.compile:
        network.compile()
    objective = Objective(KD(temperature=2.0), w_ce=0.1, w_kd=0.9).to(accelerator.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=args.epochs * len(loader))
    student, optimizer = accelerator.prepare(network, optimizer)  # a Loader has its batches on the device already
    accelerator.register_for_checkpointing(objective, schedule, loader)

    checkpoint = args.folder / "checkpoint"
    if checkpoint.exists():
        accelerator.load_state(checkpoint)
    for epoch in range(loader.state_dict()["epoch"], args.epochs):
        student.train()
        for batch in loader:
            with accelerator.autocast():
                logits = student(batch.images)
            loss = objective(logits.float(), batch)
            optimizer.zero_grad()
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(student.parameters(), 5.0)
            optimizer.step()
            schedule.step()
        student.eval()
        val_loader.set_epoch(epoch)
        with torch.inference_mode():
            right = sum((student(batch.images).argmax(1) == batch.y).sum().item() for batch in val_loader)
        accelerator.print(f"epoch {epoch + 1} of {args.epochs}: accuracy {right / len(val_loader.data):.3f}")
        accelerator.save_state(checkpoint)
        if args.stop_after == epoch + 1:
            break
    loader.close()


if __name__ == "__main__":
    main(parser.parse_args())
