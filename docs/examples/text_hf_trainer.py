"""Hugging Face's Trainer on texts: its collator adds the soft labels, and the objective is its `compute_loss_func`.

kdcache extract kjv.kd --data text:kjv.txt --data-set tokenizer=bpe.json --teacher transformers:... task=causal-lm
python text_hf_trainer.py --store kjv.kd --data text:kjv.txt --tokenizer bpe.json --sequence 256 --folder runs/hf
"""

import argparse
from typing import Any

from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, default_data_collator, set_seed

from kdcache import KD, Batch, Objective, SoftLabelCollator, Store, open_data

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--store", required=True, help="folder or address of a store of texts")
parser.add_argument("--data", required=True, help="the texts that it was extracted from")
parser.add_argument("--tokenizer", required=True, help="file of the package tokenizers")
parser.add_argument("--sequence", type=int, default=256, help="tokens of a text, as the store has them")
parser.add_argument("--folder", required=True, help="where checkpoints are written")
parser.add_argument("--epochs", type=int, default=3)


def main(args: argparse.Namespace) -> None:
    set_seed(0)
    store = Store.open(args.store)
    texts = open_data(args.data, {"tokenizer": args.tokenizer, "sequence": args.sequence}).samples
    objective = Objective(KD(temperature=1.0), w_ce=0.1, w_kd=0.9)
    config = GPT2Config(
        vocab_size=store.identity.teacher.classes, n_positions=args.sequence, n_embd=64, n_layer=2, n_head=4
    )

    def loss_of(outputs: Any, batch: Batch, num_items_in_batch: Any = None) -> Tensor:
        return objective(outputs.logits.float(), batch.to(str(outputs.logits.device)))

    trainer = Trainer(
        GPT2LMHeadModel(config),
        TrainingArguments(
            output_dir=args.folder,
            num_train_epochs=args.epochs,
            per_device_train_batch_size=16,
            learning_rate=2e-3,
            logging_steps=10,
            report_to="none",
            remove_unused_columns=False,  # the collator needs `row`
        ),
        train_dataset=[{"row": row, "input_ids": texts[row][0].long()} for row in range(len(texts))],
        data_collator=SoftLabelCollator(store, default_data_collator, key="labels"),
        compute_loss_func=loss_of,
    )
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    print(f"loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last")


if __name__ == "__main__":
    main(parser.parse_args())
