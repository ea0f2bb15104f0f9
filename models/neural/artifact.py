"""Saved reward models.

A folder with ``touchstone.json`` (what it is, how it was made, how good it is) beside the weights.
A transformer's folder is also a plain ``AutoModelForSequenceClassification``; a folder without
``touchstone.json`` is read as one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import orjson
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from models.backbones import BACKBONES, split_backbone
from models.errors import BadArtifact, ModelsError
from models.neural.checkpoint import whole_folder
from models.neural.objectives import Objective
from models.objectives import OBJECTIVES
from models.training import TrainingConfig
from models.workdir import write_json
from rubrics.registry import pick

ABOUT: Final = "touchstone.json"
STATE: Final = "objective.safetensors"
FORMAT: Final = 1
ENSEMBLE: Final = 2  # several of them in folders, each of which is a model by itself


def save_artifact(
    folder: Path,
    backbone: Any,
    objective: Objective,
    config: TrainingConfig,
    metrics: dict[str, Any],
) -> None:
    """Write a model whole or not at all, replacing one that is there."""
    about = {
        "format": FORMAT,
        "config": config.model_dump(mode="json"),
        "attributes": list(objective.attributes),
        "metrics": metrics,
    }
    with whole_folder(folder) as partial:
        backbone.save(partial)
        if state := objective.state():
            save_file(state, partial / STATE)
        write_json(partial / ABOUT, about)


def read_about(folder: Path) -> dict[str, Any]:
    """What touchstone.json says, of a model or of an ensemble. Raises BadArtifact."""
    if not folder.is_dir():
        raise BadArtifact(f"There is no reward model at {folder}.")
    try:
        about = orjson.loads((folder / ABOUT).read_bytes())
    except FileNotFoundError:
        about = {"format": FORMAT, "config": {"backbone": f"hf:{folder}"}, "metrics": {}}
    except orjson.JSONDecodeError as error:
        raise BadArtifact(f"{folder.name}/{ABOUT} is damaged.") from error
    if not isinstance(about, dict) or about.get("format") not in (FORMAT, ENSEMBLE):
        raise BadArtifact(
            f"{folder.name} is of a format this version does not read.",
            advice="Load it with the version that wrote it, or train it again.",
        )
    return about


def load_artifact(folder: Path, device: torch.device) -> tuple[Any, Objective, dict[str, Any]]:
    """(backbone, objective, what touchstone.json says) of one model. Raises BadArtifact."""
    about = read_about(folder)
    if about["format"] == ENSEMBLE:
        raise BadArtifact(
            f"{folder.name} is an ensemble, not one model.",
            advice="Load one of the folders in it, or all by models.gateway.load_reward_model.",
        )
    try:
        config = TrainingConfig(**about["config"])
    except (KeyError, TypeError, ValueError, ModelsError) as error:
        raise BadArtifact(f"{folder.name}/{ABOUT} cannot be used: {error}") from error
    make = pick(OBJECTIVES, config.objective)
    objective: Objective = make(config.objective_options, attributes=about.get("attributes", ()))
    kind = pick(BACKBONES, split_backbone(config.backbone)[0])
    backbone = kind.load(folder, config.backbone_options, device=device, outputs=objective.outputs)
    if (folder / STATE).exists():
        try:
            objective.load_state(load_file(folder / STATE))
        except (OSError, KeyError, RuntimeError, SafetensorError) as error:
            raise BadArtifact(f"{folder.name}/{STATE} cannot be read ({error}).") from error
    return backbone, objective, about
