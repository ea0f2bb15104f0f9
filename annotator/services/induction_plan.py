"""What an induction would do before it is started: whether it can, what it asks, what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from annotated_types import Ge, Le
from pydantic import BaseModel

from annotator.errors import AppError, Invalid
from annotator.models import Judge, Project, Rubric, Run, User
from annotator.queries import induction as queries
from annotator.services import asking, induction, judges, rubric_measuring
from rubrics.generators import GENERATORS, costs
from rubrics.llm.budget import ANY_MODEL, Budget, Prices, cost_of
from rubrics.registry import UnknownMethod, find

MAX_NAME: Final = Rubric._meta.get_field("name").max_length
EXACT: Final = 1e-9  # sums of money are no more exact than that
TYPICAL: Final = 10  # criteria; how many a method will find, nobody knows before
RATERS: Final = frozenset(key for key, _ in induction.raters_offered())


@dataclass(frozen=True)
class Stage:
    """One stage of the plan. ``share`` of its calls is made before the budget is spent."""

    label: str
    calls: int
    share: float = 1.0


@dataclass(frozen=True)
class Sum:
    """Stages added up. ``cost`` is None where the endpoint has no price for the model."""

    stages: Sequence[Stage] = ()
    calls: int = 0
    tokens: int = 0
    cost: float | None = None

    @property
    def tokens_rounded(self) -> int:
        """To two digits: a rule of thumb knows no more."""
        return int(float(f"{self.tokens:.1e}"))

    @property
    def cut_at(self) -> Stage | None:
        """The stage in which the budget ends."""
        return next((stage for stage in self.stages if stage.share < 1), None)


@dataclass(frozen=True)
class Plan:
    """What a run would take: if ``TYPICAL`` criteria are found, and at most."""

    pairs: int
    held: int
    model: str = ""
    typical: Sum = Sum()
    most: Sum = Sum()

    @property
    def rows(self) -> list[tuple[Stage | None, Stage]]:
        """(as it is typically, at most), a row for each stage."""
        known = {stage.label: stage for stage in self.typical.stages}
        return [(known.get(stage.label), stage) for stage in self.most.stages]

    @property
    def is_open(self) -> bool:
        """Whether it hangs on how many criteria are found."""
        return self.typical.calls != self.most.calls

    @property
    def criteria(self) -> int:
        return TYPICAL


def start(
    *,
    project: Project,
    method: str,
    options: dict[str, Any],
    judge: Judge | None,
    name: str,
    raters: str,
    pairs: int | None,
    budget: Budget,
    by: User | None,
) -> Run:
    """``services.induction.start``, refused where it is known beforehand that it must fail.

    Raises Invalid, Conflict.
    """
    name = " ".join(name.replace("\0", "").split())
    if len(name) > MAX_NAME:
        raise Invalid(f"A rubric needs a name of 1 to {MAX_NAME} characters.")
    check(project=project, method=method, judge=judge, raters=raters, budget=budget)
    return induction.start(
        project=project,
        method=method,
        options=options,
        judge=judge if induction.needs_model(method) else None,
        name=name,
        raters=raters,
        pairs=pairs,
        budget=budget,
        by=by,
    )


def check(
    *, project: Project, method: str, judge: Judge | None, raters: str, budget: Budget
) -> None:
    """Raises Invalid for what would fail once it runs, or spend nothing at all."""
    try:
        find(GENERATORS, method)
    except UnknownMethod as error:
        raise Invalid(str(error)) from None
    if raters not in RATERS:
        raise Invalid(f"Whose votes? One of {', '.join(sorted(RATERS))}.")
    is_images = project.modality == Project.Modality.IMAGE
    if not induction.needs_model(method):
        if is_images:
            raise Invalid(
                "Programs read text, and the answers of this project are images.",
                advice="Choose a method that asks a model which sees them.",
            )
    elif is_images and judge is not None and judge.endpoint and not judge.endpoint.has_images:
        raise Invalid(
            f"The answers of this project are images, and {judge.endpoint} reads none.",
            advice="Choose a judge of an endpoint that does.",
        )
    if any(limit is not None and limit <= 0 for limit in (budget.calls, budget.tokens)):
        raise Invalid("A budget of nothing asks nothing.", advice="Leave it empty for no limit.")
    if budget.money is not None and not 0 < budget.money < float("inf"):
        raise Invalid("A budget of nothing asks nothing.", advice="Leave it empty for no limit.")
    # Counted now, not from the cache: who imports pairs comes here next.
    if not queries.count(project, raters).learned:
        raise Invalid(
            "No pair outside the test split has a majority in these votes.",
            advice="Judge or import pairs first, or choose other raters.",
        )


def plan(
    *,
    project: Project,
    method: str,
    options: BaseModel,
    judge: Judge | None,
    raters: str,
    pairs: int | None,
    budget: Budget,
) -> Plan:
    """What a run of this would ask, by stage, and where its budget would end."""
    asks = induction.needs_model(method)
    there = queries.material(project, raters)
    most = pairs or (induction.PAIRS if asks else there.learned)
    given = min(most, there.learned)
    most_held, most_fitted = rubric_measuring.Sizes().of(asks=asks)
    held = min(there.held, most_held)
    if not asks:
        return Plan(given, held)
    texts = queries.lengths(project)
    fitted, judged = min(there.learned, most_fitted), min(held, rubric_measuring.JUDGED)
    known = costs.Given(given, held, fitted, judged, reasons=texts.reasons)
    sizes = costs.Texts(texts.prompt, texts.response, texts.reasons_chars)
    model = str(getattr(options, "model", "")) or (asking.model_of(judge) if judge else "")
    prices = judge.endpoint.prices if judge is not None and judge.endpoint is not None else {}
    row = prices.get(model) or prices.get(ANY_MODEL)
    price = {model: row} if row else {}
    typical, most = (
        _added_up(costs.stages(method, options, one), sizes, price, budget)
        for one in (replace(known, criteria=TYPICAL), known)
    )
    return Plan(given, held, model, typical, most)


def _added_up(
    found: Sequence[costs.Stage], sizes: costs.Texts, price: Prices, budget: Budget
) -> Sum:
    """Stage by stage, with where a limit is reached first. ``price`` is of the one model, or {}."""
    rows: list[Stage] = []
    calls = tokens = 0
    cost, is_cut = 0.0, False
    for stage in found:
        sent, received = stage.tokens(sizes)
        each = sum(cost_of(price, model=m, tokens_in=sent, tokens_out=received) for m in price)
        used = ((calls, stage.calls), (tokens, sent + received), (cost, each))
        limits = (budget.calls, budget.tokens, budget.money)
        share = 0.0 if is_cut else min(map(_share, used, limits))
        is_cut = is_cut or share < 1
        rows.append(Stage(stage.label, stage.calls, share))
        calls, tokens, cost = calls + stage.calls, tokens + sent + received, cost + each
    return Sum(rows, calls, tokens, cost if price else None)


def _share(used: tuple[float, float], limit: float | None) -> float:
    """How much of a stage fits into a limit after what came before it; 0 to 1."""
    before, here = used
    if limit is None or not here:
        return 1.0
    share = (limit - before) / here
    return 1.0 if share > 1 - EXACT else max(0.0, share)


def with_pairs(method: str, options: dict[str, Any], pairs: int | None) -> dict[str, Any]:
    """The options of a method that is given ``pairs``: it learns from all of them, if it can."""
    fields = GENERATORS[method].load_options().model_fields if method in GENERATORS else {}
    info = fields.get("pairs")
    if info is None or pairs is None or "pairs" in options:
        return options
    most = min((one.le for one in info.metadata if isinstance(one, Le)), default=pairs)
    least = max((one.ge for one in info.metadata if isinstance(one, Ge)), default=1)
    return options | {"pairs": max(least, min(pairs, most))}


def usable_judges(project: Project) -> list[Judge]:
    """Judges of a project whose endpoint and model can be asked now, newest first."""
    return [judge for judge in queries.asking_judges(project) if _is_usable(judge)]


def _is_usable(judge: Judge) -> bool:
    try:
        judges.check_usable(judge)
    except AppError:
        return False
    return True
