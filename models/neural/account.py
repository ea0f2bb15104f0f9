"""How good a trained model is and how it came about: what ``metrics.json`` says."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from models.neural.evaluate import measure_longer

if TYPE_CHECKING:
    from models.neural.loop import Trainer

ENOUGH_VALIDATION: Final = 50  # pairs; with fewer, their loss is too noisy to choose a step by
TOO_FEW: Final = f"fewer than {ENOUGH_VALIDATION} validation pairs to choose by"
TOO_EARLY: Final = "training ended before its last phase"


def measured(trainer: Trainer, result: dict[str, Any]) -> dict[str, Any]:
    """What was measured on the test split, beside its baseline, and on how much data."""
    stores, config = trainer.stores, trainer.config
    test = np.arange(len(stores["test"]))
    longer = measure_longer(stores["test"], test, seed=config.seed)
    return {
        **{name: result[name] for name in ("accuracy", "interval", "interval_method", "loss")},
        "test_pairs": result["n"],
        "test_ties": result["ties"],
        "prompts": result["groups"],
        "baselines": {"longer_wins": longer},
        "train_pairs": len(np.unique(np.concatenate([plan.rows for plan in trainer.plans]))),
        "validation_pairs": len(stores["validation"]),
        "texts": {split: store.notes for split, store in stores.items()},
    }


def how_made(trainer: Trainer) -> dict[str, Any]:
    """How the model came about."""
    done, config = trainer.progress, trainer.config
    kept = {"step": done.best_step, "why": "lowest validation loss"}
    if not done.best_step:
        why = TOO_EARLY if trainer.can_choose else TOO_FEW
        kept = {"step": done.step, "why": f"last step: {why}"}
    if trainer.carried is not None:
        kept["extrapolation"] = trainer.carried
    return {
        "steps": done.step,
        "ended": "complete" if done.step >= trainer.total_steps else "time limit",
        "kept": kept,
        "seconds": done.seconds,
        "pairs_per_second": done.pairs / done.seconds if done.seconds else None,
        "backbone": config.backbone,
        "objective": config.objective,
        "options": config.options,
        "seed": config.seed,
        "data_sha256": trainer.data_sha256,
        "fingerprint": done.fingerprint,
        "versions": versions(trainer.device) | trainer.backbone.versions,
    }


def versions(device: torch.device) -> dict[str, str]:
    """What the numbers were made with."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }
