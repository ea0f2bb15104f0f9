"""Train on this dataset with a variant of DPO that reads its columns.

    pip install "trl>=1.16" datasets
    python train_weighted_dpo.py --model your/model --loss madpo --out out

The stock DPOTrainer drops columns it does not know without a word. Here a row's numbers go beside
its tokens to the loss; rows that lack one are left out and counted. manifest.json has their scales.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import preference_losses as losses
import torch
from datasets import load_dataset
from torch import Tensor
from train_dpo import arguments, configure
from trl import DPOTrainer

Row = dict[str, Any]
Columns = dict[str, Tensor]


class Loss(NamedTuple):
    """``read`` makes the numbers of a row of its columns; None in one of them leaves it out."""

    read: Callable[[Row, Any], dict[str, float | None]]
    loss: Callable[[Tensor, Tensor, Columns, Any], Tensor]


def soft_label(row: Row, args: Any) -> dict[str, float | None]:
    """p_chosen, else 1 - flip_rate."""
    if row.get("p_chosen") is not None:
        return {"p": row["p_chosen"]}
    rate = row.get("flip_rate")
    return {"p": None if rate is None else 1 - rate}


def label_by_reward(row: Row, args: Any) -> dict[str, float | None]:
    """p_chosen, else the softmax of the bounded rewards times gamma."""
    found = soft_label(row, args)
    if found["p"] is None and (gap := difference(row, "reward01")) is not None:
        found["p"] = float(torch.sigmoid(torch.tensor(args.gamma * gap)))
    return found


def bounded_margin(row: Row, args: Any) -> dict[str, float | None]:
    """In [0, 1]; where the model prefers the rejected answer it would be below, and is 0."""
    gap = difference(row, "reward01")
    if gap is not None and not -1 <= gap <= 1:
        raise SystemExit("rewards are not in [0, 1]: MaPPO's coefficient would not be either")
    return {"margin": None if gap is None else max(gap, 0.0)}


def other_objectives(row: Row, args: Any) -> dict[str, float | None]:
    """sum_k w_k (m_k(chosen) - m_k(rejected)) over the attributes that were named."""
    if not args.objective:
        raise SystemExit("--loss modpo needs --objective NAME=WEIGHT")
    sides = []
    for side in ("chosen", "rejected"):
        said = row.get(f"{side}_ratings")
        said = json.loads(said) if isinstance(said, str) else said or {}
        sides.append([said.get(name) for name, _ in args.objective])
    if any(value is None for side in sides for value in side):
        return {"others": None}
    weights = [weight for _, weight in args.objective]
    gaps = [won - lost for won, lost in zip(*sides, strict=True)]
    return {"others": sum(w * gap for w, gap in zip(weights, gaps, strict=True))}


def difference(row: Row, what: str) -> float | None:
    chosen, rejected = row.get(f"chosen_{what}"), row.get(f"rejected_{what}")
    return None if chosen is None or rejected is None else chosen - rejected


LOSSES = {
    "dpo": Loss(lambda r, a: {}, lambda c, r, of, a: losses.dpo(c, r, beta=a.beta)),
    "cdpo": Loss(soft_label, lambda c, r, of, a: losses.cdpo(c, r, of["p"], beta=a.beta)),
    "rdpo": Loss(
        lambda r, a: {},
        lambda c, r, of, a: losses.rdpo(c, r, flip_rate=a.flip_rate, beta=a.beta),
    ),
    "ipo": Loss(lambda r, a: {}, lambda c, r, of, a: losses.ipo(c, r, beta=a.beta)),
    "madpo": Loss(
        lambda r, a: {"weight": r.get("madpo_weight")},
        lambda c, r, of, a: losses.madpo(c, r, of["weight"], beta=a.beta),
    ),
    "mappo": Loss(
        bounded_margin, lambda c, r, of, a: losses.mappo(c, r, of["margin"], beta=a.beta)
    ),
    "rpo": Loss(
        lambda r, a: {"margin": difference(r, "reward")},
        lambda c, r, of, a: losses.rpo(c, r, of["margin"], beta=a.beta, eta=a.eta, form=a.form),
    ),
    "smpo": Loss(
        label_by_reward,
        lambda c, r, of, a: losses.smpo(c, r, of["p"], beta=a.beta, flips=a.flips),
    ),
    "modpo": Loss(
        other_objectives,
        lambda c, r, of, a: losses.modpo(c, r, of["others"], first=a.first, beta=a.beta),
    ),
}


class KeepColumns:
    """A collator that gives the numbers of rows on as (n,) tensors."""

    def __init__(self, collate: Callable[[list[Row]], Row], names: Sequence[str]) -> None:
        self.collate, self.names = collate, names

    def __call__(self, examples: list[Row]) -> Row:
        batch = self.collate(examples)
        for name in self.names:
            batch[name] = torch.tensor([one[name] for one in examples], dtype=torch.float32)
        return batch


class WeightedDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """``loss(chosen, rejected, columns)`` (n,) of log-ratios (n,) and of the ``names`` kept."""

    def __init__(
        self, *args: Any, loss: Callable[[Tensor, Tensor, Columns], Tensor], names: Sequence[str],
        **given: Any,
    ) -> None:  # fmt: skip
        self.row_loss, self.names = loss, list(names)
        super().__init__(*args, **given)
        self.data_collator = KeepColumns(self.data_collator, self.names)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        known = self._signature_columns
        self._signature_columns = [*known, *(name for name in self.names if name not in known)]

    def compute_loss(
        self, model: Any, inputs: Row, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        columns = {name: inputs[name] for name in self.names}
        chosen, rejected = log_probabilities(model, inputs)
        with torch.no_grad():
            if "ref_chosen_logps" in inputs:
                reference = inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
            else:  # adapters are trained beside their own reference
                bare = self.accelerator.unwrap_model(self.model)
                with bare.disable_adapter() if self.ref_model is None else nullcontext():
                    reference = log_probabilities(self.ref_model or self.model, inputs)
        chosen, rejected = chosen - reference[0], rejected - reference[1]
        found = self.row_loss(chosen, rejected, columns).mean()
        rewards = self.beta * (chosen - rejected).detach()
        told = self._metrics["train" if self.model.training else "eval"]
        told["rewards/margins"].append(self.accelerator.gather(rewards).mean().item())
        return (found, {}) if return_outputs else found


def log_probabilities(model: Any, inputs: Row) -> Sequence[Tensor]:
    """log pi of the answers (n,) and (n,), summed over their tokens: chosen stand first."""
    given = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
    logits = model(**given, use_cache=False).logits[:, :-1].float()  # (2n, t - 1, V)
    tokens = inputs["input_ids"][:, 1:, None]
    each = logits.log_softmax(-1).gather(-1, tokens).squeeze(-1)  # (2n, t - 1)
    halves: Sequence[Tensor] = (each * inputs["completion_mask"][:, 1:]).sum(1).chunk(2)
    return halves


def options() -> argparse.ArgumentParser:
    parser = arguments()
    parser.description = __doc__
    parser.add_argument("--loss", choices=list(LOSSES), default="dpo")
    parser.add_argument("--flip-rate", type=float, default=0.1, help="rdpo: of all labels")
    parser.add_argument("--eta", type=float, default=1.0, help="rpo: scale of the rewards")
    parser.add_argument("--form", choices=["sq", "bwd_kl", "fwd_kl"], default="bwd_kl", help="rpo")
    parser.add_argument("--gamma", type=float, default=10.0, help="smpo: of bounded rewards")
    parser.add_argument("--flips", action="store_true", help="smpo: turn labels with p below .5")
    parser.add_argument("--first", type=float, default=1.0, help="modpo: weight of the preference")
    parser.add_argument(
        "--objective", action="append", type=weighted, metavar="NAME=WEIGHT", help="modpo"
    )
    return parser


def weighted(text: str) -> tuple[str, float]:
    name, _, weight = text.rpartition("=")
    return name, float(weight)


def main(given: Sequence[str] | None = None) -> WeightedDPOTrainer:
    args = options().parse_args(given)
    loss = LOSSES[args.loss]
    rows = load_dataset(args.data, split=args.split)
    if not len(rows):
        raise SystemExit(f"the split {args.split} has no row")
    read = [loss.read(row, args) for row in rows]
    names = list(read[0])
    known = [n for n, one in enumerate(read) if None not in one.values()]
    if len(known) < len(read):
        print(f"{len(read) - len(known):,} of {len(read):,} rows lack what {args.loss} reads")
    if not known:
        raise SystemExit("no row has it: see the manifest, or export again with the column")
    kept = rows.select(known).select_columns(["prompt", "chosen", "rejected"])
    for name in names:
        kept = kept.add_column(f"row_{name}", [float(read[n][name]) for n in known])
    trainer = WeightedDPOTrainer(
        model=args.model,
        args=configure(args),
        train_dataset=kept,
        names=[f"row_{name}" for name in names],
        loss=lambda c, r, of: loss.loss(c, r, {n[4:]: value for n, value in of.items()}, args),
    )
    trainer.train()
    trainer.save_model()
    return trainer


if __name__ == "__main__":
    main()
