"""A loop in plain torch: validation, mixed precision, torch.compile, and a run that goes on where it was stopped.

kdcache demo demo                    # makes demo/digits.kd
python plain.py --store demo/digits.kd --data digits --folder runs/plain
"""

import argparse
import contextlib
from pathlib import Path

import torch

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


@torch.inference_mode()
def accuracy(student: torch.nn.Module, loader: Loader) -> float:
    """The share of right answers on the validation rows."""
    student.eval()
    right = sum((student(batch.images).argmax(1) == batch.y).sum().item() for batch in loader)
    return right / len(loader.data)


def main(args: argparse.Namespace) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    feed = FeedOptions(workers=args.workers, device=device)
    store = Store.open(args.store)
    loader = Loader(open_data(args.data, {}), [store], batch_size=128, epochs=args.epochs, feed=feed)
    val_loader = Loader(open_data(args.data, {"split": "test"}), batch_size=256, epochs=args.epochs, feed=feed)

    torch.manual_seed(0)
    student = convnet(width=8, channels=1, num_classes=store.identity.teacher.classes).to(device)
    objective = Objective(KD(temperature=2.0), w_ce=0.1, w_kd=0.9).to(device)
    optimizer = torch.optim.AdamW([*student.parameters(), *objective.parameters()], lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=args.epochs * len(loader))
    scaler = torch.amp.GradScaler(device, enabled=device == "cuda")
    parts = {"student": student, "objective": objective, "optimizer": optimizer, "schedule": schedule}
    parts |= {"scaler": scaler, "loader": loader}

    checkpoint = args.folder / "checkpoint.pt"
    if checkpoint.exists():
        for name, state in torch.load(checkpoint, map_location=device, weights_only=True).items():
            parts[name].load_state_dict(state)
    if args.compile:
        student.compile()  # in place: the names of weights stay

    for epoch in range(loader.state_dict()["epoch"], args.epochs):
        student.train()
        for batch in loader:
            with torch.autocast(device, torch.float16) if device == "cuda" else contextlib.nullcontext():
                logits = student(batch.images)
            loss = objective(logits.float(), batch)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(student.parameters(), 5.0)
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
        val_loader.set_epoch(epoch)
        print(
            f"epoch {epoch + 1} of {args.epochs}: loss {loss.item():.3f}, accuracy {accuracy(student, val_loader):.3f}"
        )
        args.folder.mkdir(parents=True, exist_ok=True)
        torch.save({name: part.state_dict() for name, part in parts.items()}, checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)  # a kill leaves the old one whole
        if args.stop_after == epoch + 1:
            break
    loader.close()


if __name__ == "__main__":
    main(parser.parse_args())
