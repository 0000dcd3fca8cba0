"""Lightning Fabric: your own loop, its device, precision and checkpoints.

kdcache demo demo                    # makes demo/digits.kd
python fabric_loop.py --store demo/digits.kd --data digits --folder runs/fabric
"""

import argparse
from pathlib import Path

import torch
from lightning.fabric import Fabric

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
    fabric = Fabric(accelerator="auto", devices=1, precision="16-mixed" if torch.cuda.is_available() else "32-true")
    fabric.seed_everything(0)
    feed = FeedOptions(workers=args.workers, device=str(fabric.device))
    store = Store.open(args.store)
    loader = Loader(open_data(args.data, {}), [store], batch_size=128, epochs=args.epochs, feed=feed)
    val_loader = Loader(open_data(args.data, {"split": "test"}), batch_size=256, epochs=args.epochs, feed=feed)

    network = convnet(width=8, channels=1, num_classes=store.identity.teacher.classes)
    if args.compile:
        network.compile()
    objective = Objective(KD(temperature=2.0), w_ce=0.1, w_kd=0.9).to(fabric.device)
    student, optimizer = fabric.setup(network, torch.optim.AdamW(network.parameters(), lr=2e-3))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=args.epochs * len(loader))
    state = {"student": student, "optimizer": optimizer, "schedule": schedule, "loader": loader}

    checkpoint = args.folder / "checkpoint.ckpt"
    if checkpoint.exists():
        fabric.load(checkpoint, state)
    for epoch in range(loader.state_dict()["epoch"], args.epochs):
        student.train()
        for batch in loader:  # its tensors are on the device already
            loss = objective(student(batch.images).float(), batch)
            optimizer.zero_grad()
            fabric.backward(loss)
            fabric.clip_gradients(student, optimizer, max_norm=5.0)
            optimizer.step()
            schedule.step()
        student.eval()
        val_loader.set_epoch(epoch)
        with torch.inference_mode():
            right = sum((student(batch.images).argmax(1) == batch.y).sum().item() for batch in val_loader)
        fabric.print(f"epoch {epoch + 1} of {args.epochs}: accuracy {right / len(val_loader.data):.3f}")
        fabric.save(checkpoint, state)
        if args.stop_after == epoch + 1:
            break
    loader.close()


if __name__ == "__main__":
    main(parser.parse_args())
