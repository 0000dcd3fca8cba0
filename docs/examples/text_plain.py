"""A language model in a loop of your own: a collator adds the soft labels to your batches, by the number of each text.

kdcache extract kjv.kd --data text:kjv.txt --data-set tokenizer=bpe.json --teacher ...
python text_plain.py --store kjv.kd --data text:kjv.txt --tokenizer bpe.json --sequence 256
"""

import argparse

import torch
from torch.utils.data import DataLoader

from kdcache import KD, Objective, SoftLabelCollator, Store, open_data
from kdcache.networks import gpt

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--store", required=True, help="folder or address of a store of texts")
parser.add_argument("--data", required=True, help="the texts that it was extracted from")
parser.add_argument("--tokenizer", required=True, help="file of the package tokenizers")
parser.add_argument("--sequence", type=int, default=256, help="tokens of a text, as the store has them")
parser.add_argument("--epochs", type=int, default=3)


def main(args: argparse.Namespace) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    store = Store.open(args.store)
    texts = open_data(args.data, {"tokenizer": args.tokenizer, "sequence": args.sequence}).samples
    features = [{"row": row, "input_ids": texts[row][0].long()} for row in range(len(texts))]  # your own data set
    loader = DataLoader(features, batch_size=16, shuffle=True, collate_fn=SoftLabelCollator(store))

    torch.manual_seed(0)
    classes = store.identity.teacher.classes
    student = gpt(num_classes=classes, width=64, depth=2, heads=4, sequence=args.sequence).to(device)
    objective = Objective(KD(temperature=1.0), w_ce=0.1, w_kd=0.9)
    optimizer = torch.optim.AdamW(student.parameters(), lr=2e-3)
    for epoch in range(args.epochs):
        total, count = 0.0, 0
        for inputs in loader:
            batch = inputs["soft_labels"].to(device)
            logits = student(batch.images)
            loss = objective(logits, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            nats = torch.nn.functional.cross_entropy(logits[batch.mask].detach(), batch.y[batch.mask], reduction="sum")
            total, count = total + nats.item(), count + int(batch.mask.sum())
        print(f"epoch {epoch + 1} of {args.epochs}: perplexity {torch.tensor(total / count).exp():.1f}")


if __name__ == "__main__":
    main(parser.parse_args())
