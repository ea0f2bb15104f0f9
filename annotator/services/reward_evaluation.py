"""Evaluating a reward model on pairs that people decided, as a run of its own.

Nothing is kept between attempts but scores, which stand in RewardScore: an attempt that goes on
after a kill collects again, asks for the scores that are still missing, and measures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray

from annotator.errors import Conflict, Invalid, NotFound
from annotator.models import Project, RewardModel, Run, Split, User
from annotator.queries import evaluation_pairs as queries
from annotator.queries import evaluations
from annotator.queries.evaluation_pairs import LIMIT, Data, Pairs, Votes
from annotator.queries.evaluations import Choice, choices
from annotator.queries.quality_data import Codes
from annotator.queries.snapshot import snapshot
from annotator.services import ensembles, evaluation_scores, runs
from annotator.services.ensembles import Way
from annotator.services.evaluation_figures import (
    Candidates,
    Crowd,
    Evaluated,
    Scorer,
    ceiling,
    figures,
)
from annotator.services.evaluation_scores import can_score, compares
from models.intervals import Accuracy
from models.rm_evaluation import Floats, Swap
from models.transforms import COMBINATIONS
from rubrics.rewards import EVEN

STAGES: Final = (("collect", "Collect"), ("score", "Score"), ("measure", "Measure"))
PEOPLE: Final = "people"
MAX_TAGS: Final = 30
MAX_GROUPS: Final = 12
MOST_CANDIDATES: Final = 20_000  # asked of the members of an ensemble for best of n
KIND_NAMES: Final = {"human": "people here", "imported": "imported raters"}


def start(
    *,
    reward_model: RewardModel,
    by: User | None,
    splits: Sequence[str] = (Split.TEST.value,),
    tag: str = "",
    import_run: int | None = None,
    most: int = queries.MOST,
    against: Sequence[str] | None = None,
    gold: str = PEOPLE,
) -> Run:
    """A queued run; the caller enqueues its job.

    ``against`` are keys of ``queries.evaluations.choices``, None for all that have something to
    say; a reward model that is named is scored where it has not. ``gold`` is "people" or such a key.
    Raises Invalid, Conflict.
    """
    project = reward_model.project
    data = Data(_splits(splits), _tag(tag), _import(project, import_run), _most(most))
    known = {one.key: one for one in choices(reward_model)}
    for key in [*(against or ()), *([gold] if gold != PEOPLE else [])]:
        if key not in known:
            raise Invalid(
                f"There is nothing called “{key[:60]}” to compare with.",
                advice=f"Known: {', '.join(known) or 'nothing yet'}.",
            )
    if evaluations.active(reward_model) is not None:
        raise Conflict("It is being evaluated already.", advice="Wait for the run, or cancel it.")
    return runs.start(
        project=project,
        kind=Run.Kind.EVALUATE,
        title=f"Evaluate {reward_model}",
        config={
            "reward_model": reward_model.pk,
            "model": reward_model.name,
            "data": data.as_json(),
            "against": None if against is None else list(dict.fromkeys(against)),
            "gold": gold,
            "queue": "gpu",
        },
        by=by,
    )


def _splits(splits: Sequence[str]) -> tuple[str, ...]:
    unknown = set(splits) - set(Split.values)
    if unknown:
        raise Invalid(f"There is no split {min(unknown)[:60]!r}.")
    if not splits:
        raise Invalid("Choose at least one split.")
    return tuple(split for split in Split.values if split in splits)


def _tag(tag: str) -> str:
    tag = tag.replace("\0", "").strip()
    if len(tag) > queries.MAX_NAME:
        raise Invalid("There is no tag that long.")
    return tag


def _import(project: Project, run_id: int | None) -> int | None:
    if run_id is None:
        return None
    rows = Run.objects.filter(project=project, kind=Run.Kind.IMPORT, pk=run_id)
    if not rows.exists():
        raise Invalid(f"Run {run_id} is no import of this project.")
    return run_id


def _most(most: int) -> int:
    if not 1 <= most <= LIMIT:
        raise Invalid(f"Pairs: 1 to {LIMIT:,}.")
    return most


def perform(work: runs.Work) -> dict[str, Any]:
    """Collect, score what is missing, measure. Safe to be killed at any point and run again."""
    known = {stage["key"]: stage for stage in work.run.stages}
    work.run.stages = [
        known.get(key, {"key": key, "label": label, "state": "", "seconds": None})
        for key, label in STAGES
    ]
    return _Job(work).run()


@dataclass(frozen=True, eq=False)
class _Collected:
    pairs: Pairs  # decided
    undecided: int
    candidates: Codes  # ids
    candidate_prompts: Codes
    ceiling: Accuracy | None


class _Job:
    def __init__(self, work: runs.Work) -> None:
        self.work, config = work, work.run.config
        self.project = work.run.project
        rows = RewardModel.objects.select_related("project").filter(project=self.project)
        model = rows.filter(pk=config["reward_model"]).first()
        if model is None:
            raise NotFound("This reward model is not there any more.")
        self.model: RewardModel = model
        self.data = Data.from_json(config["data"])
        offered = {one.key: one for one in choices(model)}
        named = config["against"]
        self.rivals = [offered[key] for key in (named or offered) if key in offered]
        if named is not None and not named:
            self.rivals = []
        self.gold: Choice | None = offered.get(config["gold"])
        if self.gold is None and config["gold"] != PEOPLE:
            raise NotFound(f"The gold {config['gold']} is not there any more.")
        # Those that somebody named are scored where they have not; others as far as they have.
        asked = [self.model, *self._models(self.rivals if named else [])]
        self.to_compare = [one for one in asked if compares(one)]
        self.to_score = [one for one in asked if not compares(one)]
        golden = self._models([self.gold] if self.gold else [])
        self.to_score += [one for one in golden if one not in self.to_score]
        self.units = {one.pk: ensembles.unit_of(one) for one in self._models(self.rivals)}
        self.done = 0
        self.margins: dict[int, Floats] = {}  # (n,) of each that compares
        self.by_ways: dict[str, Floats] = {}  # of candidates, by ways of an ensemble
        self.notes: list[str] = []

    def _models(self, among: Sequence[Choice]) -> list[RewardModel]:
        ids = [one.id for one in among if one.kind == "reward-model"]
        rows = RewardModel.objects.filter(project=self.project, pk__in=ids)
        return list(rows.order_by("pk"))

    def run(self) -> dict[str, Any]:
        self.work.stage(*STAGES[0])
        with snapshot() as raw:
            found = self._collect(raw)
        self.work.stage(*STAGES[1])
        swap = self._score(found)
        self.work.stage(*STAGES[2])
        self.work.check()
        with snapshot() as raw:
            return self._result(raw, found, swap)

    def _collect(self, raw: psycopg.Connection) -> _Collected:
        pairs = queries.read_pairs(raw, self.project.pk, self.data)
        decided = pairs.where(pairs.is_decided)
        if not len(decided):
            raise Invalid(
                "No pair here has a preference by people.",
                advice="Choose other data, or judge or import some pairs.",
            )
        undecided = len(pairs) - len(decided)
        taken = "" if len(pairs) >= pairs.total else f", a sample of {pairs.total:,}"
        self.work.log(f"{len(decided):,} pairs with a majority, {undecided:,} without{taken}")
        rows = queries.read_candidates(raw, decided)
        votes = queries.read_votes(raw, self.project.pk, pairs)
        raters = queries.read_raters(raw, np.unique(votes.raters).tolist())
        people = np.isin(votes.raters, [one.id for one in raters if one.kind in KIND_NAMES])
        return _Collected(decided, undecided, rows["id"], rows["prompt_id"], ceiling(votes, people))

    def _score(self, found: _Collected) -> Swap | None:
        """Everything that is missing, and the check of the order. Raises Stopped."""
        ids = np.concatenate([found.pairs.chosen, found.pairs.rejected, found.candidates])
        owed = [(model, evaluation_scores.missing(model, ids)) for model in self.to_score]
        owed = [(model, left) for model, left in owed if len(left)]
        for model, left in owed:
            if not can_score(model):
                self._note(f"The files of {model} are gone; {len(left):,} answers lack its score.")
        owed = [(model, left) for model, left in owed if can_score(model)]
        total = sum(len(left) for _, left in owed)
        if total and self.work.run.attempt > 1:
            self.work.resumed(f"{total:,} scores to go")
        total += len(found.pairs) * len(self.to_compare)
        self.work.progress(0, total, unit="answers and pairs" if self.to_compare else "answers")
        if not total and not can_score(self.model):
            return None
        with evaluation_scores.holding_device(self.work):
            for model, left in owed:
                unscored = evaluation_scores.score(self.work, model, left, self._tick(len(left)))
                if unscored:
                    self._note(f"{model} gave no number for {unscored:,} answers.")
            for model in self.to_compare:
                self._compare(model, found.pairs)
            if not can_score(self.model):
                return None
            self._ask_members(found)
            return evaluation_scores.swap(self.work, self.model, found.pairs)

    def _ask_members(self, found: _Collected) -> None:
        """Of an ensemble, what each way of combining its members makes of candidates."""
        if self.model.members == 1:
            return
        kept = whole_prompts(found.candidate_prompts, most=MOST_CANDIDATES)
        ids, ways = found.candidates, [Way(combine) for combine in COMBINATIONS]
        scores = evaluation_scores.by_ways(self.work, self.model, ids[kept], ways)
        for way, told in zip(ways, scores, strict=True):
            self.by_ways[way.combine] = np.full(len(ids), np.nan)
            self.by_ways[way.combine][kept] = told

    def _tick(self, more: int) -> Callable[[int], None]:
        """Progress of a part of so many, after the parts before it."""
        base, self.done = self.done, self.done + more
        return lambda at: self.work.progress(base + at)

    def _compare(self, model: RewardModel, pairs: Pairs) -> None:
        """Ask a model that compares two answers about each pair."""
        if not can_score(model):
            self._note(f"The files of {model} are gone: it cannot be asked about pairs.")
            return
        ids = np.stack([pairs.chosen, pairs.rejected], axis=1)
        found = evaluation_scores.margins(self.work, model, ids, self._tick(len(ids)))
        if lost := int(np.isnan(found).sum()):
            self._note(f"{model} gave no number for {lost:,} pairs.")
        self.margins[model.pk] = found

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.work.log(text)

    # Measuring ------------------------------------------------------------------------------------

    def _result(
        self, raw: psycopg.Connection, found: _Collected, swap: Swap | None
    ) -> dict[str, Any]:
        margins, scores = self._own(raw, found.pairs)
        known = np.isfinite(margins)
        if not known.any():
            raise Invalid(
                f"{self.model} has no score of any of these answers.",
                advice="Its files are needed to score them. Train it again.",
            )
        pairs, margins = found.pairs.where(known), margins[known]
        self.margins = {pk: values[known] for pk, values in self.margins.items()}
        votes = queries.read_votes(raw, self.project.pk, pairs)
        raters = queries.read_raters(raw, np.unique(votes.raters).tolist())
        told = figures(
            Evaluated(
                pairs=pairs,
                model=Scorer(self._own_key, self.model.name, "reward-model", margins),
                scores=None if scores is None else scores[known],
                rivals=[self._scorer(raw, one, pairs, votes, raters) for one in self.rivals],
                votes=votes,
                crowd=self._crowd(raw, votes, raters),
                tags=queries.read_tags(raw, pairs, most=MAX_TAGS),
                candidates=self._candidates(raw, found, votes, raters),
                ceiling=found.ceiling,
                swap=swap,
            )
        )
        told["counts"] = {
            "total": pairs.total,
            "decided": len(found.pairs),
            "undecided": found.undecided,
            "unscored": int((~known).sum()),
            "pairs": len(pairs),
            "prompts": len(np.unique(pairs.prompts)),
        }
        told["notes"] = self.notes + self._cautions(told)
        return self._with_headlines(told)

    @property
    def _own_key(self) -> str:
        return self.model.name

    def _cautions(self, told: dict[str, Any]) -> list[str]:
        cautions = []
        seen = told["splits"][Split.TRAIN.value]
        if seen:
            cautions.append(
                f"{seen:,} of these pairs are of the train split, from which models learn: on them"
                " this is no held-out accuracy."
            )
        if self.model.members > 1:
            way = ensembles.way_of(self.model)
            cautions.append(f"Its score is {way}: an ensemble is measured as one model.")
        for one in self._models(self.rivals):
            if compares(one) and one.pk not in self.margins:
                cautions.append(
                    f"{one} compares two answers directly; here it stands by its scores against"
                    " reference answers, which cannot hold a circle. Name it to have it asked."
                )
        return cautions

    def _with_headlines(self, told: dict[str, Any]) -> dict[str, Any]:
        used = self.work.run.counters
        calibration = told["calibration"][self._own_key]
        speed = used["scored"] / used["seconds"] if used.get("seconds") else None
        return {
            "run": self.work.run.pk,
            "reward_model": self.model.number,
            "pairs": told["counts"]["pairs"],
            "accuracy": told["accuracy"],
            "ece": calibration["ece"] if calibration else None,
            "length": told["length"]["model"],
            "answers_per_second": speed,
            "figures": told,
        }

    def _own(self, raw: psycopg.Connection, pairs: Pairs) -> tuple[Floats, Floats | None]:
        """The model's margins (n,), and its scores (n, 2) where answers have one."""
        if compares(self.model):
            return self.margins.get(self.model.pk, np.full(len(pairs), np.nan)), None
        scores = self._sides(raw, "reward_model", self.model.pk, pairs)
        unit = ensembles.unit_of(self.model)  # of an ensemble: log-odds again
        return unit * (scores[:, 0] - scores[:, 1]), scores

    def _sides(self, raw: psycopg.Connection, source: str, of: int, pairs: Pairs) -> Floats:
        """Scores (n, 2) of chosen and rejected."""
        both = np.stack([pairs.chosen, pairs.rejected], axis=1)
        return queries.read_scores(raw, source, of, both.ravel()).reshape(-1, 2)

    def _scorer(
        self,
        raw: psycopg.Connection,
        one: Choice,
        pairs: Pairs,
        votes: Votes,
        raters: Sequence[queries.Rater],
    ) -> Scorer:
        if one.kind == "judge":
            rows = np.isin(votes.raters, _judge_raters(raters, one.id)) & (votes.pair >= 0)
            at = votes.pair[rows]
            net = np.bincount(at, weights=votes.outcome[rows], minlength=len(pairs))
            said = np.bincount(at, minlength=len(pairs)) > 0
            return Scorer(one.key, one.label, one.kind, np.where(said, np.sign(net), np.nan))
        if one.kind == "reward-model" and one.id in self.margins:
            return Scorer(one.key, one.label, one.kind, self.margins[one.id])
        source = "reward_model" if one.kind == "reward-model" else "rubric_version"
        scores = self._sides(raw, source, one.id, pairs)
        even = EVEN if one.kind == "rubric" else 0.0
        unit = self.units.get(one.id, 1.0) if one.kind == "reward-model" else 1.0
        margins = unit * (scores[:, 0] - scores[:, 1])
        return Scorer(one.key, one.label, one.kind, margins, even)

    def _crowd(
        self, raw: psycopg.Connection, votes: Votes, raters: Sequence[queries.Rater]
    ) -> Crowd:
        of_kind = {
            kind: np.isin(votes.raters, [one.id for one in raters if one.kind == kind])
            for kind in KIND_NAMES
        }
        people = np.any(list(of_kind.values()), axis=0)
        named = queries.read_groups(raw, self.project.pk, most=MAX_GROUPS)
        groups = [(KIND_NAMES[kind], rows) for kind, rows in of_kind.items() if rows.any()]
        groups += [(name, people & np.isin(votes.raters, ids)) for name, ids in named]
        return Crowd(
            people,
            groups,
            imported=bool(of_kind["imported"].any()),
            simulated=any(one.is_simulated for one in raters if one.kind in KIND_NAMES),
        )

    # Best of n ------------------------------------------------------------------------------------

    def _candidates(
        self,
        raw: psycopg.Connection,
        found: _Collected,
        votes: Votes,
        raters: Sequence[queries.Rater],
    ) -> Candidates:
        ids = found.candidates
        if compares(self.model):
            scores = None
        else:
            scores = queries.read_scores(raw, "reward_model", self.model.pk, ids)
        gold, label = self.gold, PEOPLE
        if gold is None:
            who = np.array([one.id for one in raters if one.kind in KIND_NAMES], dtype=np.int64)
            golds = won_shares(ids, votes, np.isin(votes.raters, who))
        elif gold.kind == "judge":
            golds = won_shares(ids, votes, np.isin(votes.raters, _judge_raters(raters, gold.id)))
            label = gold.label
        else:
            source = "reward_model" if gold.kind == "reward-model" else "rubric_version"
            golds, label = queries.read_scores(raw, source, gold.id, ids), gold.label
        return Candidates(found.candidate_prompts, scores, golds, label, self.by_ways)


def whole_prompts(prompts: Codes, *, most: int) -> NDArray[np.bool_]:
    """Which candidates (m,) belong to the first prompts that have no more than ``most`` in all."""
    _, code, counts = np.unique(prompts, return_inverse=True, return_counts=True)
    kept: NDArray[np.bool_] = (np.cumsum(counts) <= most)[code.reshape(-1)]
    return kept


def _judge_raters(raters: Sequence[queries.Rater], judge_id: int) -> list[int]:
    return [one.id for one in raters if one.judge_id == judge_id]


def won_shares(ids: Codes, votes: Votes, rows: Any) -> Floats:
    """The share of comparisons that each response (m,) won, a tie as half; NaN without one.

    ``ids`` ascend; ``rows`` are the single votes that count.
    """
    wins, of = np.zeros(len(ids)), np.zeros(len(ids))
    for side, sign in ((votes.first[rows], 1), (votes.second[rows], -1)):
        there = np.isin(side, ids)
        at = np.searchsorted(ids, side[there])
        wins += np.bincount(
            at, weights=(1 + sign * votes.said[rows][there]) / 2, minlength=len(ids)
        )
        of += np.bincount(at, minlength=len(ids))
    return np.divide(wins, of, out=np.full(len(ids), np.nan), where=of > 0)
