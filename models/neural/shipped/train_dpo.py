"""Train on this dataset with TRL's stock DPOTrainer, which reads prompt, chosen and rejected alone.

pip install "trl>=1.16" datasets
python train_dpo.py --model your/model --out out
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import load_dataset
from trl import DPOConfig, DPOTrainer


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a hub id or a folder")
    parser.add_argument("--out", default="out")
    parser.add_argument("--data", default=str(Path(__file__).parent), help="the dataset's folder")
    parser.add_argument("--split", default="train")
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--learning-rate", type=float, default=1e-6)
    parser.add_argument("--batch", type=int, default=4, help="rows per device")
    parser.add_argument("--max-length", type=int, default=1024, help="tokens")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=-1, help="at most so many")
    parser.add_argument("--cpu", action="store_true")
    return parser


def configure(args: argparse.Namespace) -> DPOConfig:
    return DPOConfig(
        output_dir=args.out,
        beta=args.beta,
        learning_rate=args.learning_rate,
        per_device_train_batch_size=args.batch,
        max_length=args.max_length,
        num_train_epochs=args.epochs,
        max_steps=args.steps,
        logging_steps=1 if 0 < args.steps < 100 else 10,
        report_to=[],
        use_cpu=args.cpu,
        bf16=not args.cpu,
    )


def main(given: Sequence[str] | None = None) -> Any:
    args = arguments().parse_args(given)
    rows = load_dataset(args.data, split=args.split)
    trainer = DPOTrainer(model=args.model, args=configure(args), train_dataset=rows)
    trainer.train()
    trainer.save_model()
    return trainer


if __name__ == "__main__":
    main()
