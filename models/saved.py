"""What a saved reward model says of itself, read without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import orjson

from models.backbones import split_backbone
from models.errors import BadArtifact, ModelsError

ABOUT: Final = "touchstone.json"
PLAIN: Final = "hf"  # a folder without that file is a plain transformer


def read_backbone(folder: Path) -> str:
    """The key of the backbone of the model in ``folder``. Raises BadArtifact."""
    try:
        about = orjson.loads((folder / ABOUT).read_bytes())
        return split_backbone(about["config"]["backbone"])[0]
    except FileNotFoundError:
        if folder.is_dir():
            return PLAIN
        raise BadArtifact(f"There is no reward model at {folder}.") from None
    except (OSError, KeyError, TypeError, AttributeError, ModelsError, ValueError) as error:
        raise BadArtifact(f"{folder.name}/{ABOUT} is damaged.") from error


def read_unit(folder: Path) -> float:
    """What a difference of 1 in score is in the unit of the loss, such as log-odds: 1 but for
    ensembles, whose scores are in standard deviations. Raises BadArtifact."""
    try:
        about = orjson.loads((folder / ABOUT).read_bytes())
        return float(about.get("unit", 1.0))
    except FileNotFoundError:
        return 1.0
    except (OSError, TypeError, AttributeError, ValueError) as error:
        raise BadArtifact(f"{folder.name}/{ABOUT} is damaged.") from error
