"""A project whose preferences follow a planted rule: good answers use one vocabulary, bad the other.

Inserted in bulk, since training tests need hundreds of judged pairs.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from django.utils import timezone

from annotator.models import Judgment, Preference, Project, Prompt, Rater, Response, Task
from tests.factories import digest, project

GOOD = [
    "clear",
    "careful",
    "exact",
    "helpful",
    "sourced",
    "brief",
    "honest",
    "complete",
    "tested",
    "kind",
]
BAD = [
    "vague",
    "sloppy",
    "wrong",
    "rude",
    "invented",
    "endless",
    "evasive",
    "partial",
    "broken",
    "cold",
]
PLAIN = [
    "the",
    "answer",
    "to",
    "your",
    "question",
    "about",
    "bread",
    "and",
    "rivers",
    "is",
    "in",
    "this",
    "text",
    "here",
]
SPLITS = ("train",) * 8 + ("validation", "test")


def preferences(
    pairs: int = 200,
    *,
    in_project: Project | None = None,
    raters: int = 1,
    flips: float = 0.0,
    seed: int = 0,
    splits: Sequence[str] = SPLITS,
    kind: str = Rater.Kind.IMPORTED,
    length: int = 20,
) -> Project:
    """``pairs`` prompts of two answers, each judged by every rater, wrongly at rate ``flips``."""
    owner = in_project or project()
    dice = random.Random(seed)
    number = Rater.objects.filter(project=owner).count()
    people = [
        Rater.objects.create(project=owner, kind=kind, name=f"rater {number + n}")
        for n in range(raters)
    ]
    prompts = Prompt.objects.bulk_create(
        Prompt(
            project=owner,
            content_hash=digest("planted", str(seed), str(n)),
            messages=[{"role": "user", "content": f"Question {seed}-{n}?"}],
            split=splits[n % len(splits)],
        )
        for n in range(pairs)
    )
    answers = Response.objects.bulk_create(
        Response(
            project=owner,
            prompt=prompt,
            content_hash=digest(side, str(prompt.pk)),
            text=_text(dice, GOOD if side == "good" else BAD, length),
        )
        for prompt in prompts
        for side in dice.sample(["good", "bad"], 2)
    )
    places = [answers[n : n + 2] for n in range(0, len(answers), 2)]
    tasks = Task.objects.bulk_create(
        Task(
            project=owner,
            prompt=two[0].prompt,
            response_ids=[one.pk for one in two],
            content_hash=digest("planted task", str(two[0].pk)),
            overlap=raters,
            judged=raters,
            free=0,
        )
        for two in places
    )
    _vote(owner, list(zip(tasks, places, strict=True)), people, dice, flips)
    return owner


def _text(dice: random.Random, vocabulary: list[str], length: int) -> str:
    words = dice.choices(PLAIN, k=length) + dice.choices(vocabulary, k=max(1, length // 4))
    dice.shuffle(words)
    return " ".join(words)


def _vote(
    owner: Project,
    pairs: list[tuple[Task, list[Response]]],
    people: list[Rater],
    dice: random.Random,
    flips: float,
) -> None:
    votes: list[tuple[Task, Rater, int]] = []
    for task, two in pairs:
        good = 1 if set(two[0].text.split()) & set(GOOD) else -1
        votes += [(task, one, -good if dice.random() < flips else good) for one in people]
    now: Any = timezone.now()
    judgments = Judgment.objects.bulk_create(
        Judgment(
            project=owner,
            task=task,
            rater=rater,
            kind=Judgment.Kind.IMPORTED,
            ranks=[1, 2] if outcome == 1 else [2, 1],
            strength=1,
            submitted_at=now,
        )
        for task, rater, outcome in votes
    )
    Preference.objects.bulk_create(
        Preference(
            project=owner,
            judgment=judgment,
            task=task,
            prompt_id=task.prompt_id,
            rater=rater,
            a_id=task.response_ids[0],
            b_id=task.response_ids[1],
            outcome=outcome,
            strength=1,
        )
        for judgment, (task, rater, outcome) in zip(judgments, votes, strict=True)
    )
