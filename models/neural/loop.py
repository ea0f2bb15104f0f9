"""The training loop.

The order of the data and the learning rate follow from the step alone, so a run that was killed
continues from its last checkpoint to the same weights. An objective may ask for several phases,
each with a loss and an optimizer of its own; they follow each other in the one loop.

Which weights are kept: those with the lowest validation **loss**, since reward models overfit
within an epoch or two and loss is less noisy than accuracy; the last ones where there are too few
validation pairs to tell.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.backbones import BACKBONES, split_backbone
from models.errors import Diverged, OutOfMemory
from models.neural import checkpoint, room
from models.neural.account import ENOUGH_VALIDATION, TOO_EARLY, TOO_FEW, how_made, measured
from models.neural.artifact import save_artifact
from models.neural.batches import batches, deal
from models.neural.checkpoint import Progress
from models.neural.evaluate import measure, outputs, outputs_of_pairs
from models.neural.memory import is_out_of_memory
from models.neural.objectives import Batch, Objective
from models.neural.phases import carried_on, kappas, lay_out, plan_at
from models.neural.priors import add_prior
from models.neural.process import Events, Meter, Stage, StartAgain, Stop, Stopped, Throttle
from models.neural.store import Store, build_store, open_store
from models.neural.team import Team, as_in, clip, whole
from models.objectives import OBJECTIVES
from models.pairs import (
    SPLITS,
    Pair,
    Ranked,
    data_sha256,
    lists_path,
    pairs_path,
    read_lists,
    read_pairs,
)
from models.supervision import MEMORY_ADVICE
from models.training import TrainingConfig
from models.workdir import ARTIFACT, CACHE, CHECKPOINTS, METRICS, attributes_of, write_json
from rubrics.registry import pick

CHECKPOINT_SECONDS: Final = 300.0  # no kill costs more than this and a step
CPU: Final = torch.device("cpu")

Result = TypeVar("Result")
Places = NDArray[np.int64]


class Trainer:
    """State of one run, and its loop."""

    def __init__(
        self,
        workdir: Path,
        config: TrainingConfig,
        *,
        device: torch.device,
        emit: Events,
        stop: Stop,
        team: Team | None = None,
    ) -> None:
        self.workdir, self.config, self.device = workdir, config, device
        self.emit, self.stop, self.team = emit, stop, team or Team(device)
        self.data_sha256 = data_sha256(workdir)
        self.checkpoints = workdir / CHECKPOINTS

    def run(self) -> dict[str, Any]:
        """Load, encode, train, evaluate, save. Returns the metrics, as in ``metrics.json``."""
        self.load()
        self.stores = self.encode()
        self.select()
        self.resume()
        self.train()
        self.settle()
        metrics = self.evaluate()
        self.save(metrics)
        return metrics

    def load(self) -> None:
        with Stage(self.emit, "load"):
            torch.manual_seed(self.config.seed)  # a new head, and dropout
            self.options: Any = self.config.objective_options
            self.objective: Objective = pick(OBJECTIVES, self.config.objective)(
                self.options, attributes=attributes_of(self.workdir)
            )
            self.backbone = self.created(self.device)
        self.backbone.check = self.stop.check  # while it encodes
        self.backbone.shares = self.team.size if self.team.is_sharded else 1
        if self.backbone.cpu_threads:
            torch.set_num_threads(self.backbone.cpu_threads)
        self.check()

    def created(self, device: torch.device) -> Any:
        """A new backbone."""
        key, argument = split_backbone(self.config.backbone)
        options, outputs = self.config.backbone_options, self.objective.outputs
        return pick(BACKBONES, key).create(argument, options, device=device, outputs=outputs)

    def check(self) -> None:
        """Raise Stopped in all of the team if one of them was asked to stop."""
        if self.team.any(bool(self.stop))[0]:
            raise Stopped

    def encode(self) -> dict[str, Store]:
        """Encoded pairs of every split, from the cache where a former attempt left them."""
        with Stage(self.emit, "tokenize"):
            read = (self.objective.reads, *self.objective.attributes)
            parts = (self.data_sha256, self.config.backbone, self.backbone.fingerprint, *read)
            name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
            if self.team.is_first:
                with suppress(Stopped):  # which the others, who wait, are told by the check
                    for split in SPLITS:
                        self.encode_split(split, name)
            self.check()
            return {split: self.encode_split(split, name) for split in SPLITS}

    def encode_split(self, split: str, name: str) -> Store:
        folder = self.workdir / CACHE / f"{split}-{name}"
        if (store := open_store(folder)) is not None:
            return store
        tell = Throttle(2.0)

        def on_chunk(pairs: int) -> None:
            self.stop.check()
            if tell():
                self.emit("stage", stage="tokenize", state="running", split=split, pairs=pairs)

        rows: Iterable[Pair | Ranked] = read_pairs(pairs_path(self.workdir, split))
        if self.objective.reads == "lists" and split == "train":
            rows = chain(read_lists(lists_path(self.workdir, split)), rows)
        return build_store(
            folder, rows, self.backbone.encode, on_chunk, attributes=self.objective.attributes
        )

    def select(self) -> None:
        """Which rows are trained on in which steps, and which pairs are validated on."""
        store: Store = self.stores["train"]
        options: Any = self.config.backbone_options
        weight = store.columns["weight"]
        self.plans = lay_out(
            self.objective.phases(),
            store,
            weight if self.options.weighting else np.ones_like(weight),
            epochs=options.epochs,
            batch_size=options.batch_size,
        )
        self.ends = {plan.last for plan in self.plans}
        self.backbone.fit(store, self.plans[0].rows, seed=self.config.seed)
        if self.team.size > 1:
            room.level(self.workdir, self.backbone, self.team)
        if scale := self.config.prior_scale:
            rows = self.plans[0].rows
            add_prior(self.backbone, store, rows, scale=scale, seed=self.config.seed)
        if (memory := getattr(self.backbone, "memory", None)) is not None:
            self.emit("log", message=str(memory))
        self.batch_size, self.total_steps = options.batch_size, self.plans[-1].last
        self.objective.begin(self.backbone.module, store.ratings)
        n = len(self.stores["validation"])
        rng = np.random.default_rng(self.config.seed)
        some = rng.choice(n, size=min(n, self.config.validation_pairs), replace=False)
        self.validation_pairs = np.sort(some)
        often = -(-self.total_steps // self.backbone.evaluations)
        self.evaluate_every = self.config.evaluate_every or often
        self.checkpoint_every = self.config.checkpoint_every or self.evaluate_every

    def resume(self) -> None:
        """Continue from the newest checkpoint of this very run, if there is one."""
        self.frozen = checkpoint.digest(self.backbone.module)
        self.team.share(self.backbone.module)
        self.optimizer = self.backbone.optimizer(len(self.plans[0].rows))
        fingerprint = self.config.fingerprint(self.data_sha256)
        self.progress = Progress(fingerprint)
        self.saved, self.saved_at, self.rate = (0, 0), time.monotonic(), 0.0
        self.order: tuple[int, list[NDArray[np.int64]]] = (-1, [])  # epoch and its batches
        if self.team.size > 1:  # dropout is of each its own
            torch.manual_seed((self.config.seed + 1) * 1_000_003 + self.team.rank)
        state = self.latest(fingerprint)
        if state is not None:
            done = checkpoint.restore(state, self.backbone.module, self.optimizer, team=self.team)
            self.progress, self.saved = done, (done.step, done.evaluated)
            self.emit("resumed", step=done.step)

    def latest(self, fingerprint: str) -> dict[str, Any] | None:
        """The state to go on from; one looks for it, and tells the others of a team."""
        state = None
        if self.team.is_first:
            state = checkpoint.load_latest(
                self.checkpoints,
                fingerprint,
                self.stored_on,
                on_damage=lambda message: self.emit("log", message=message),
                frozen=self.frozen,
            )
        step = self.team.tell(state and state["progress"]["step"])
        return self.state_at(step) if step and not self.team.is_first else state

    def state_at(self, step: int) -> dict[str, Any]:
        return checkpoint.load_state(self.checkpoints, step, self.stored_on)

    @property
    def stored_on(self) -> torch.device:
        """Where checkpoints are read to: whole ones may not fit where shares do."""
        return CPU if self.team.size > 1 else self.device

    def train(self) -> None:
        """Step until the end; evaluate and save on the way."""
        done, meter = self.progress, Meter(self.emit)
        with Stage(self.emit, "train"):
            while True:
                finished = done.step >= self.total_steps or self.out_of_time()
                if done.step and (finished or self.evaluation_due()):
                    self.evaluate_validation()
                asked, due = self.team.any(bool(self.stop), self.checkpoint_due())
                if done.step and (finished or asked or due):
                    self.checkpoint()
                if asked:
                    raise Stopped
                if finished:
                    return
                values = self.step()
                meter(
                    values.tolist(),
                    progress=done,
                    total_steps=self.total_steps,
                    epoch=self.plan.epochs_done(done.step),
                    lr=self.rate,
                )

    def evaluation_due(self) -> bool:
        step = self.progress.step
        return step % self.evaluate_every == 0 or step in self.ends

    def checkpoint_due(self) -> bool:
        done = self.progress
        regular = done.step % self.checkpoint_every == 0 or done.step == done.best_step
        return (
            regular
            or done.step in self.ends
            or time.monotonic() - self.saved_at > CHECKPOINT_SECONDS
        )

    def checkpoint(self) -> None:
        done = self.progress
        if self.saved == (done.step, done.evaluated):
            return  # just resumed from it
        size = checkpoint.save_checkpoint(
            self.checkpoints,
            done,
            self.backbone.module,
            self.optimizer,
            frozen=self.frozen,
            keep=self.ends,
            team=self.team,
        )
        self.saved, self.saved_at = (done.step, done.evaluated), time.monotonic()
        self.emit("checkpoint", step=done.step, bytes=size)

    def step(self) -> Tensor:
        """One update. Returns its loss, margin and gradient norm, (3,)."""
        started = time.monotonic()
        module, done = self.backbone.module, self.progress
        self.plan = plan = plan_at(self.plans, done.step)
        if done.step == plan.first:
            self.optimizer = self.backbone.optimizer(len(plan.rows))
        batch = self.batch(done.step)  # (b,)
        share = plan.phase.rate * self.backbone.schedule(plan.progress(done.step))
        self.rate = share * self.backbone.options.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group.get("rate", 1.0)
        module.train()
        sums = self.in_room(lambda: self.gradients(batch), self.stores["train"], batch)  # (2,)
        norm = clip(module.parameters(), self.backbone.clip)
        values = torch.stack([*(sums / len(batch)), norm])  # (3,)
        if not torch.isfinite(values).all():
            raise Diverged(
                f"At update {done.step + 1} the loss or its gradient was no longer a number.",
                advice="Lower the learning rate, and look for extreme pair weights.",
            )
        self.optimizer.step()
        done.step += 1
        done.pairs += len(batch)
        done.seconds += time.monotonic() - started
        return values

    def gradients(self, batch: NDArray[np.int64]) -> Tensor:
        """Gradients of a batch (b,), part by part. Returns its loss and margin, summed, (2,)."""
        self.optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros(2, device=self.device)
        own, idle = self.passes(batch)
        for i, part in enumerate([*own, *idle]):
            counts = i < len(own)
            with self.team.accumulate(is_last=i == len(own) + len(idle) - 1):
                # Sums over the part. Gradients are divided by the size of the team on their way.
                loss, margin = self.team.run(partial(self.forward, batch[part], batch))
                (loss * (counts * self.team.size / len(batch))).backward()
            sums += torch.stack([loss.detach(), margin]) * counts
        return self.team.add_up(sums)

    def passes(self, batch: NDArray[np.int64]) -> tuple[list[Places], list[Places]]:
        """Places in a batch (b,) that this process reads in turn, and what it reads for nothing
        because others of the team have more parts: all take part in every pass."""
        store = self.stores["train"]
        tokens = store.longest(batch) * (store.rows[batch + 1] - store.rows[batch])  # (b,)
        shares = [
            [share[part] for part in self.parts(batch[share])]
            for share in deal(tokens, self.team.size)
        ]
        own, most = shares[self.team.rank], max(len(share) for share in shares)
        return own, [np.array([tokens.argmin()])] * (most - len(own))

    def in_room(self, work: Callable[[], Result], store: Store, rows: NDArray[np.int64]) -> Result:
        """``work`` on some rows, begun anew with less at a time where memory runs out over it.

        Raises OutOfMemory where a single row does not fit.
        """
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                why = str(error).strip().split("\n")[0]
            # Out of the except block: the error no longer holds the tensors it was raised over.
            sizes = store.longest(rows) * (store.rows[rows + 1] - store.rows[rows])  # (b,) tokens
            less = getattr(self.backbone, "read_less", None)
            if less is None or not less(tokens=int(sizes.sum()), least=int(sizes.max())):
                raise OutOfMemory(f"Memory ran out. {why}", advice=MEMORY_ADVICE)
            if self.team.size > 1:  # the others are in the middle of a pass that all take part in
                room.note(self.workdir, self.backbone)
                raise StartAgain
            self.emit("log", message=f"Memory ran out: going on with {self.backbone.reads}.")

    def parts(self, batch: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Places in a batch (b,) of rows that go through the model together."""
        store = self.stores["train"]
        sizes = store.rows[batch + 1] - store.rows[batch]  # (b,)
        parts = []
        for size in np.unique(sizes):  # one size at a time: pairs are nearly all there is
            places = np.flatnonzero(sizes == size)
            lengths = store.lengths[store.sequences(batch[places])].reshape(-1, size)
            parts += [places[part] for part in self.backbone.parts(lengths)]
        return parts

    def forward(self, rows: NDArray[np.int64], batch: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Weighted loss and margin, summed over rows (b,) of one size of an update's ``batch``."""
        store = self.stores["train"]
        sequences = store.sequences(rows)  # (S,) the answers of a row in turn
        found = self.backbone.forward(store, sequences)  # (S, d) fp32
        weight = self.tensor(self.plan.weight[rows])  # (b,)
        loss = self.plan.phase.loss(found, self.known(store, rows, sequences, batch))  # (b,)
        first_two = np.arange(len(rows))[:, None] * (len(sequences) // len(rows)) + np.arange(2)
        margins = self.objective.margins(found.detach()[first_two.reshape(-1)])  # (b,)
        return (weight * loss).sum(), margins.sum()

    def known(
        self,
        store: Store,
        rows: NDArray[np.int64],
        sequences: NDArray[np.int64],
        batch: NDArray[np.int64],
    ) -> Batch:
        return Batch(
            sizes=torch.from_numpy(store.rows[rows + 1] - store.rows[rows]).to(self.device),
            p=self.tensor(store.columns["p"][rows]),
            strength=self.tensor(store.columns["strength"][rows]),
            ranks=torch.from_numpy(store.ranks[sequences]).to(self.device),
            ratings=self.tensor(store.ratings[sequences]),
            scale=float(store.columns["strength"][batch].clip(min=1).mean()),
        )

    def tensor(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).float().to(self.device)

    def batch(self, step: int) -> NDArray[np.int64]:
        """The pairs (b,) of an update."""
        epoch, index = self.plan.epoch(step)
        if self.order[0] != epoch:
            sides = self.stores["train"].longest(self.plan.rows)
            seed, grouped = (self.config.seed, epoch), self.backbone.group_by_length
            self.order = epoch, batches(sides, self.batch_size, seed=seed, by_length=grouped)
        return self.plan.rows[self.order[1][index]]

    def evaluate_validation(self) -> None:
        """Measure the current weights, once per step, and remember the best."""
        done = self.progress
        if done.evaluated == done.step or not len(self.validation_pairs):
            return
        try:
            result = self.measure("validation", self.validation_pairs)
        except Stopped:
            return  # the loop saves this step; the evaluation is made up for on resuming
        self.emit("evaluate", step=done.step, split="validation", **result)
        done.evaluated = done.step
        is_last = done.step > self.plans[-1].first  # what former phases made is only a beginning
        if is_last and self.can_choose and result["loss"] < done.best_loss:
            done.best_step, done.best_loss = done.step, result["loss"]

    def measure(self, split: str, pairs: NDArray[np.int64]) -> dict[str, Any]:
        store = self.stores[split]
        found = self.in_room(
            lambda: outputs_of_pairs(self.backbone, store, pairs, self.check, team=self.team),
            store,
            pairs,
        )  # (2n, d)
        margins = self.objective.margins(found).double().numpy()
        return self.team.tell(measure(margins, store, pairs, seed=self.config.seed))

    def out_of_time(self) -> bool:
        limit = self.config.time_limit
        return limit is not None and self.team.any(self.progress.seconds >= limit)[0]

    def settle(self) -> None:
        """The weights that are kept: of the best step, and carried on where validation says so."""
        done = self.progress
        if done.best_step and done.best_step != done.step:
            checkpoint.put(self.backbone.module, self.state_at(done.best_step)["model"])
        self.carried = self.carry_on() if self.objective.extrapolation else None
        if self.objective.references:
            store, rng = self.stores["train"], np.random.default_rng(self.config.seed)
            count = min(len(store.lengths), self.objective.references)
            some = np.sort(rng.choice(len(store.lengths), size=count, replace=False))
            self.objective.refer(outputs(self.backbone, store, some, self.check, team=self.team))

    def carry_on(self) -> dict[str, Any]:
        """Move the weights on by what the last phase changed, as far as validation loss falls."""
        start, module = self.plans[-1].first, self.backbone.module
        if not start < self.progress.step:
            return {"kappa": 0.0, "why": TOO_EARLY}
        if not self.can_choose:
            return {"kappa": 0.0, "why": TOO_FEW}
        after = {name: value.clone() for name, value in checkpoint.trained(module).items()}
        before = {n: as_in(v, after[n]) for n, v in self.state_at(start)["model"].items()}
        losses = {}
        for kappa in kappas(self.objective.extrapolation):
            checkpoint.put(module, carried_on(before, after, kappa))
            losses[kappa] = self.measure("validation", self.validation_pairs)["loss"]
        best = min((k for k in losses if np.isfinite(losses[k])), key=losses.__getitem__, default=0)
        checkpoint.put(module, carried_on(before, after, best))
        self.emit("log", message=f"weights carried on by kappa = {best:g}")
        return {"kappa": best, "why": "lowest validation loss", "losses": list(losses.values())}

    @property
    def can_choose(self) -> bool:
        """Whether there are enough validation pairs to choose weights by."""
        return len(self.validation_pairs) >= ENOUGH_VALIDATION

    def evaluate(self) -> dict[str, Any]:
        """Measure the kept weights on the test split, once."""
        with Stage(self.emit, "evaluate"):
            result = self.measure("test", np.arange(len(self.stores["test"])))
        return self.metrics(result)

    def metrics(self, result: dict[str, Any]) -> dict[str, Any]:
        """What is told of the model, with what was measured on the test split."""
        return measured(self, result) | how_made(self)

    def save(self, metrics: dict[str, Any]) -> None:
        with Stage(self.emit, "save"):
            backbone = self.assembled() if self.team.is_sharded else self.backbone
            if self.team.is_first:
                save_artifact(
                    self.workdir / ARTIFACT, backbone, self.objective, self.config, metrics
                )
                write_json(self.workdir / METRICS, metrics)  # last: now the run is done
                shutil.rmtree(self.workdir / CACHE, ignore_errors=True)
            self.team.wait()

    def assembled(self) -> Any:
        """A backbone with the whole weights on the CPU, of the first of a team that has shares."""
        weights = whole(self.backbone.module.state_dict(), keep=self.team.is_first)
        if not self.team.is_first:
            return None
        backbone = self.created(CPU)
        backbone.module.load_state_dict(weights)
        return backbone
