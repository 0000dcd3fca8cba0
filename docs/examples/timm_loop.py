"""timm's parts in a loop of your own: its networks, optimisers, schedules and averaged weights.

kdcache demo demo                    # makes demo/digits.kd
python timm_loop.py --store demo/digits.kd --data digits --folder runs/timm
"""

import argparse
import contextlib
from pathlib import Path

import timm
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3, NativeScaler

from kdcache import KD, FeedOptions, Loader, Objective, Store, open_data

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--store", required=True, help="folder or address of a store")
parser.add_argument("--data", required=True, help="the data set that it was extracted from")
parser.add_argument("--folder", type=Path, required=True, help="where the checkpoint is written")
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--workers", type=int, default=2)
parser.add_argument("--model", default="test_resnet", help="of timm")
parser.add_argument("--compile", action="store_true", help="by torch.compile")
parser.add_argument("--stop-after", type=int, help="epochs after which this process ends; start it again to go on")


def main(args: argparse.Namespace) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    feed = FeedOptions(workers=args.workers, device=device)
    store = Store.open(args.store)
    loader = Loader(open_data(args.data, {}), [store], batch_size=128, epochs=args.epochs, feed=feed)
    val_loader = Loader(open_data(args.data, {"split": "test"}), batch_size=256, epochs=args.epochs, feed=feed)

    torch.manual_seed(0)
    student = timm.create_model(args.model, in_chans=1, num_classes=store.identity.teacher.classes).to(device)
    averaged = ModelEmaV3(student, decay=0.9)
    objective = Objective(KD(temperature=2.0), w_ce=0.1, w_kd=0.9).to(device)
    optimizer = create_optimizer_v2(student, opt="nadamw", lr=5e-3, weight_decay=0.02)
    schedule = CosineLRScheduler(optimizer, t_initial=args.epochs, warmup_t=1, warmup_lr_init=1e-4)
    scaler = NativeScaler(device=device)
    parts = {"student": student, "averaged": averaged, "objective": objective, "optimizer": optimizer}
    parts |= {"schedule": schedule, "scaler": scaler, "loader": loader}

    checkpoint = args.folder / "checkpoint.pt"
    if checkpoint.exists():
        for name, state in torch.load(checkpoint, map_location=device, weights_only=True).items():
            parts[name].load_state_dict(state)
    if args.compile:
        student.compile()

    for epoch in range(loader.state_dict()["epoch"], args.epochs):
        schedule.step(epoch)
        student.train()
        for batch in loader:
            with torch.autocast(device, torch.float16) if device == "cuda" else contextlib.nullcontext():
                logits = student(batch.images)
            loss = objective(logits.float(), batch)
            optimizer.zero_grad()
            scaler(loss, optimizer, clip_grad=5.0, parameters=student.parameters())
            averaged.update(student)
        averaged.eval()
        val_loader.set_epoch(epoch)
        with torch.inference_mode():
            right = sum((averaged.module(batch.images).argmax(1) == batch.y).sum().item() for batch in val_loader)
        print(f"epoch {epoch + 1} of {args.epochs}: accuracy {right / len(val_loader.data):.3f}")
        args.folder.mkdir(parents=True, exist_ok=True)
        torch.save({name: part.state_dict() for name, part in parts.items()}, checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)  # a kill leaves the old one whole
        if args.stop_after == epoch + 1:
            break
    loader.close()


if __name__ == "__main__":
    main(parser.parse_args())
