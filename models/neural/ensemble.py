"""Ensembles: K models trained one after another in one run, and put on one scale.

A member is what a training with its seed makes by itself: another new head, another order of the
data, another random prior (models.neural.priors). Texts are encoded once, and embeddings of frozen
models computed once, for all of them. What is done is kept: the members that are complete in
``members/``, the one at hand in ``checkpoints/member-i/``, so a killed run goes on in the very
member and update it was at.

Scores of different members have neither zero nor unit in common. Each is standardized by its own
mean and standard deviation over one reference set: answers of the validation split, or of the
training split where there are too few. Source: Coste et al. 2023, arXiv 2310.02743.
"""

from __future__ import annotations

import gc
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from models import transforms
from models.errors import BadArtifact, BadData
from models.neural import artifact
from models.neural.checkpoint import whole_folder
from models.neural.evaluate import measure, outputs
from models.neural.loop import Trainer
from models.neural.process import Events, Stage, Stop
from models.pairs import data_sha256
from models.training import TrainingConfig
from models.transforms import Reference
from models.workdir import ARTIFACT, CACHE, CHECKPOINTS, METRICS, write_json

MEMBERS: Final = "members"
FEWEST_REFERENCES: Final = 10  # validation pairs, below which training pairs are the scale
ONCE: Final = ("load", "tokenize")  # stages that are told of the first member at work alone

Floats = NDArray[np.float64]
Metrics = dict[str, Any]


def name_of(number: int) -> str:
    """Of the folder of a member, counted from 0; for people they count from 1."""
    return f"member-{number + 1}"


class MemberEvents(Events):
    """What a member says, as part of the whole run: its updates follow those of former ones."""

    def __init__(self, emit: Events, number: int, members: int, *, is_first: bool) -> None:
        super().__init__(None)
        self.emit, self.number, self.members, self.is_first = emit, number, members, is_first
        self.steps = 0  # of one member

    def __call__(self, event: str, **fields: Any) -> None:
        if event == "stage" and not self._is_told(fields["stage"], fields["state"]):
            return
        if "step" in fields:
            fields["step"] += self.number * self.steps
        if "total_steps" in fields:
            fields["total_steps"] *= self.members
        self.emit(event, **fields, member=self.number + 1, members=self.members)

    def _is_told(self, stage: str, state: str) -> bool:
        return self.is_first and (stage in ONCE or (stage, state) == ("train", "running"))


class Member(Trainer):
    """One member: trained as any model, measured by its scores, kept beside the others."""

    emit: MemberEvents

    def __init__(self, ensemble: Ensemble, number: int, *, is_first: bool = True) -> None:
        self.ensemble = ensemble.config
        super().__init__(
            ensemble.workdir,
            ensemble.config.member(number),
            device=ensemble.device,
            emit=MemberEvents(ensemble.emit, number, self.ensemble.members, is_first=is_first),
            stop=ensemble.stop,
        )
        self.checkpoints = self.checkpoints / name_of(number)
        self.folder = ensemble.folder / name_of(number)

    def run(self) -> Metrics:
        """Train it, note its scores, keep it. Returns its own metrics."""
        self.load()
        self.stores = self.encode()
        self.select()
        self.emit.steps = self.total_steps
        self.resume()
        self.train()
        self.settle()
        split, pairs = self.references()
        test = np.arange(len(self.stores["test"]))
        found = {"reference": self.scores(split, pairs), "test": self.scores("test", test)}
        metrics = self.metrics(self.judge(found["test"].reshape(-1, 2)))
        write_arrays(self.folder.with_suffix(".npz"), found)
        artifact.save_artifact(self.folder, self.backbone, self.objective, self.config, metrics)
        return metrics

    def references(self) -> tuple[str, NDArray[np.int64]]:
        """Split and pairs (r,) whose answers are the scale, the same for all members.

        At most as many as are used to validate.
        """
        split = "validation" if len(self.stores["validation"]) >= FEWEST_REFERENCES else "train"
        n = len(self.stores[split])
        rng = np.random.default_rng(self.ensemble.seed)
        some = rng.choice(n, size=min(n, self.ensemble.validation_pairs), replace=False)
        return split, np.sort(some)

    def scores(self, split: str, pairs: NDArray[np.int64]) -> Floats:
        """Raw scores (m,) of the answers of some pairs, in turn."""
        store = self.stores[split]
        sequences = store.sequences(pairs)
        found = self.in_room(
            lambda: outputs(self.backbone, store, sequences, self.stop.check), store, pairs
        )  # (m, d)
        return self.objective.scores(found).double().numpy()

    def judge(self, scores: Floats) -> Metrics:
        """What scores (n, 2) of the test pairs come to."""
        store = self.stores["test"]
        margins = scores[:, 0] - scores[:, 1]
        return measure(margins, store, np.arange(len(store)), seed=self.ensemble.seed)


class Ensemble:
    """State of one run of several members."""

    def __init__(
        self,
        workdir: Path,
        config: TrainingConfig,
        *,
        device: torch.device,
        emit: Events,
        stop: Stop,
    ) -> None:
        self.workdir, self.config, self.device = workdir, config, device
        self.emit, self.stop = emit, stop
        self.folder = workdir / MEMBERS
        self.data_sha256 = data_sha256(workdir)

    def run(self) -> Metrics:
        """Train all members, put them on one scale, save. Returns the metrics of the whole."""
        self.sweep()
        left = [i for i in range(self.config.members) if not self.is_done(i)]
        last: Member | None = None
        for number in left:
            last = None  # its model's memory
            free_memory()
            last = Member(self, number, is_first=number == left[0])
            last.run()
            shutil.rmtree(last.checkpoints, ignore_errors=True)
        if left:
            self.emit("stage", stage="train", state="done")
        with Stage(self.emit, "evaluate"):
            metrics, scales = self.measure(last or self.reopened())
        self.save(metrics, scales)
        return metrics

    def sweep(self) -> None:
        """Remove what a killed attempt left half-made."""
        checkpoints = self.workdir / CHECKPOINTS
        for folder in (self.folder, *checkpoints.glob("member-*")):
            for leftover in [*folder.glob("*.partial"), *folder.glob("*.replaced")]:
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()

    def is_done(self, number: int) -> bool:
        """Whether this member is complete, of these data and options."""
        try:
            about = artifact.read_about(self.folder / name_of(number))
        except BadArtifact:
            return False
        same = self.config.member(number).fingerprint(self.data_sha256)
        return bool(about["metrics"].get("fingerprint") == same)

    def reopened(self) -> Member:
        """The first member with its data and no training: all were done when this began."""
        member = Member(self, 0)
        member.load()
        member.stores = member.encode()
        return member

    def measure(self, member: Member) -> tuple[Metrics, list[Reference]]:
        """Metrics of the whole, and the scale of each member; of ``member`` only its data."""
        folders = [self.folder / name_of(i) for i in range(self.config.members)]
        found = [read_arrays(folder.with_suffix(".npz")) for folder in folders]
        own = [artifact.read_about(folder)["metrics"] for folder in folders]
        scales = [Reference.of(one["reference"]) for one in found]
        reference, test = (
            np.stack(
                [
                    transforms.standardized(one[part], scale)
                    for one, scale in zip(found, scales, strict=True)
                ]
            )
            for part in ("reference", "test")
        )  # (k, r) and (k, 2n)
        unit = unit_of(scales)
        ways = {
            how: member.judge(unit * transforms.combine(test, how).reshape(-1, 2))
            for how in transforms.COMBINATIONS
        }
        split, pairs = member.references()
        ensemble = {
            "members": len(own),
            "prior_scale": self.config.prior_scale,
            "unit": unit,
            "reference": {"split": split, "pairs": len(pairs), "n": scales[0].n},
            "each": [
                {
                    **{name: one[name] for name in ("seed", "accuracy", "interval", "loss")},
                    **{name: one[name] for name in ("test_pairs", "steps", "kept", "ended")},
                    **scale.as_json(),
                }
                for one, scale in zip(own, scales, strict=True)
            ],
            "ways": {
                how: {name: told[name] for name in ("accuracy", "interval", "n", "loss")}
                for how, told in ways.items()
            },
            **diversity(reference, test),
        }
        return self.metrics(own, ways["mean"]) | {"ensemble": ensemble}, scales

    def metrics(self, own: list[Metrics], told: Metrics) -> Metrics:
        """What a single model tells too: accuracy of the mean score, steps and time of all."""
        seconds = sum(one["seconds"] for one in own)
        rates = [(one["pairs_per_second"] or 0.0) * one["seconds"] for one in own]
        is_complete = all(one["ended"] == "complete" for one in own)
        return own[0] | {
            **{name: told[name] for name in ("accuracy", "interval", "interval_method", "loss")},
            "test_pairs": told["n"],
            "test_ties": told["ties"],
            "steps": sum(one["steps"] for one in own),
            "ended": "complete" if is_complete else "time limit",
            "kept": {
                "step": sum(one["kept"]["step"] for one in own),
                "why": "those of each member together",
            },
            "seconds": seconds,
            "pairs_per_second": sum(rates) / seconds if seconds else None,
            "seed": self.config.seed,
            "fingerprint": self.config.fingerprint(self.data_sha256),
        }

    def save(self, metrics: Metrics, scales: list[Reference]) -> None:
        """All members in one artifact, each in a folder that is a model by itself."""
        first = artifact.read_about(self.folder / name_of(0))
        about = {
            "format": artifact.ENSEMBLE,
            "config": self.config.model_dump(mode="json"),
            "attributes": first["attributes"],
            "metrics": metrics,
            "unit": unit_of(scales),
            "members": [
                {"folder": name_of(i), "seed": self.config.member(i).seed, **scale.as_json()}
                for i, scale in enumerate(scales)
            ],
        }
        with Stage(self.emit, "save"):
            with whole_folder(self.workdir / ARTIFACT) as partial:
                for i in range(self.config.members):
                    source = self.folder / name_of(i)
                    shutil.copytree(source, partial / name_of(i), copy_function=link_or_copy)
                write_json(partial / artifact.ABOUT, about)
            write_json(self.workdir / METRICS, metrics)  # last: now the run is done
            for name in (MEMBERS, CACHE):
                shutil.rmtree(self.workdir / name, ignore_errors=True)


def unit_of(scales: list[Reference]) -> float:
    """What a standardized score of 1 is in the unit of raw scores: log-odds, for most objectives."""
    return float(np.mean([scale.scale for scale in scales]))


def diversity(reference: Floats, test: Floats) -> Metrics:
    """How unlike members are: standardized scores (k, r) of references, (k, 2n) of test pairs.

    ``correlation`` is the mean over pairs of members; ``disagree`` the share of test pairs in which
    not all members prefer the same answer; ``variance`` the mean over reference answers.
    """
    matrix = np.asarray(np.corrcoef(reference))  # (k, k), NaN where one is constant
    alike = matrix[np.triu_indices(len(reference), 1)]
    signs = np.sign(test[:, 0::2] - test[:, 1::2])  # (k, n)
    split = (signs != signs[0]).any(axis=0)
    return {
        "correlation": float(alike.mean()) if np.isfinite(alike).all() else None,
        "disagree": float(split.mean()) if len(split) else None,
        "disagree_n": len(split),
        "variance": float(transforms.ensemble_variance(reference).mean()),
    }


def free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def link_or_copy(source: str, target: str) -> None:
    """The same file by another name where the file system can, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_arrays(path: Path, arrays: dict[str, Floats]) -> None:
    """Write arrays whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_arrays(path: Path) -> dict[str, Floats]:
    """What ``write_arrays`` wrote. Raises BadData."""
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BadData(f"{path.name} cannot be read ({error}).") from error
