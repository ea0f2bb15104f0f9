"""Training scripts that go into a bundle: files of this project, read as text and never imported."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import models

FOLDER: Final = Path(models.__file__).parent / "neural" / "shipped"
SCRIPTS: Final = ("train_dpo.py", "train_weighted_dpo.py", "preference_losses.py")


@cache
def training_scripts() -> dict[str, str]:
    """Name -> content."""
    return {name: (FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS}
