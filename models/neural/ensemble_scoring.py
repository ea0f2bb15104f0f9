"""Scores of a saved ensemble, and one way to open whatever was saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models import transforms
from models.errors import BadArtifact
from models.neural.artifact import ENSEMBLE, read_about
from models.neural.evaluate import outputs
from models.neural.scoring import CONVERSATIONS_AT_ONCE, Scorer, clean_conversation
from models.neural.store import pack
from models.pairs import Answer, Message
from models.transforms import Reference


def open_scorer(folder: Path, *, device: str = "") -> Scorer:
    """The model or the ensemble saved in a folder. Raises BadArtifact."""
    if read_about(folder)["format"] == ENSEMBLE:
        return EnsembleScorer(folder, device=device)
    return Scorer(folder, device=device)


class EnsembleScorer(Scorer):
    """All members in memory. Texts are encoded, and frozen models asked, once for all of them."""

    def __init__(self, folder: Path, *, device: str = "") -> None:
        self.about = read_about(folder)
        try:
            known = [(one["folder"], Reference.from_json(one)) for one in self.about["members"]]
            self.unit = float(self.about["unit"])
        except (KeyError, TypeError, ValueError) as error:
            raise BadArtifact(f"{folder.name} does not say what its members are.") from error
        if not known or any(Path(name).name != name for name, _ in known):
            raise BadArtifact(f"{folder.name} names members that are not folders in it.")
        self.members = [Scorer(folder / name, device=device) for name, _ in known]
        self.scales = [scale for _, scale in known]
        self.backbone, self.objective = self.members[0].backbone, self.members[0].objective

    def score(self, conversations: Sequence[tuple[list[Message], Answer]]) -> NDArray[np.float64]:
        """The mean (m,) of what the members say, each in its own standard deviations."""
        return transforms.ensemble_mean(self.score_members(conversations))

    def score_members(
        self, conversations: Sequence[tuple[list[Message], Answer]]
    ) -> NDArray[np.float64]:
        found = np.empty((len(self.members), len(conversations)))  # (k, m)
        for start in range(0, len(conversations), CONVERSATIONS_AT_ONCE):
            chunk = conversations[start : start + CONVERSATIONS_AT_ONCE]
            store = pack(self.backbone.encode([clean_conversation(one) for one in chunk]))
            rows = np.arange(len(chunk))
            for row, member, scale in zip(found, self.members, self.scales, strict=True):
                told = outputs(member.backbone, store, rows, check=lambda: None)
                raw = member.objective.scores(told).numpy()
                row[start : start + len(chunk)] = transforms.standardized(raw, scale)
        return found

    def margins(self, pairs: Sequence[tuple[list[Message], Answer, Answer]]) -> NDArray[np.float64]:
        """Log-odds (n,): the difference of two mean scores, in the unit of raw scores."""
        scores = self.score([(prompt, one) for prompt, *two in pairs for one in two]).reshape(-1, 2)
        return self.unit * (scores[:, 0] - scores[:, 1])

    def read_less(self) -> bool:
        less = [member.read_less() for member in self.members]
        return any(less)
