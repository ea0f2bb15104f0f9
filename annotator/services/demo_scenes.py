"""The second demo project: scenes drawn by simulated models, judged by simulated raters.

What each picture fails is known, so every task carries its right verdict, and what is learned
from the votes can be held against it.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from django.db import transaction
from django.utils import timezone

from annotator.demo import scenes, simulate
from annotator.demo.scenes import Drawn, Scene
from annotator.kinds.checklist import checked
from annotator.kinds.verdict import Verdict, dense, widest
from annotator.models import (
    Judgment,
    Membership,
    Project,
    ProjectSettings,
    Rater,
    Response,
    Role,
    Task,
    User,
)
from annotator.services import hashing, imports, judgments, projects, raters
from annotator.services.demo import Loaded

SLUG: Final = "scenes"
OVERLAP: Final = 3
SEED: Final = 7
RANKED: Final = 10  # scenes that are also ranked and checked
CHECKS: Final = 2  # raters of each ranking and checklist
SLIP: Final = 0.06  # probability of a wrong tick
GUIDELINES: Final = """\
Compare each image with its prompt, word by word.

1. **Everything asked for is there**, in the right number.
2. **Colors and other attributes are on the right things.**
3. **Places**: left, above, inside mean what they say.
4. **Nothing is there that was to be left out.**
5. **Words** are spelled as in the prompt.

Beauty decides only between images that are equally right. Say *tie* where you see no difference.
"""


def load(people: dict[Role, User]) -> Loaded:
    """Make what is missing of the project; what is there stays as it is."""
    project = Project.objects.filter(slug=SLUG).first() or projects.create(
        slug=SLUG,
        name="Scene prompts",
        modality=Project.Modality.IMAGE,
        question="Which image shows what was asked for?",
        guidelines=GUIDELINES,
        owner=people[Role.OWNER],
        options=ProjectSettings(overlap=1, daily_target=20, failures=list(scenes.FAILURES)),
    )
    if not project.is_simulated:
        project.is_simulated = True
        project.save(update_fields=["is_simulated"])
    for role, person in people.items():
        Membership.objects.get_or_create(project=project, user=person, defaults={"role": role})
    if not Judgment.objects.filter(project=project, rater__is_simulated=True).exists():
        _fill(project)
    return Loaded(
        project=project,
        prompts=project.prompts.count(),
        tasks=project.tasks.count(),
        votes=Judgment.objects.filter(project=project, rater__is_simulated=True).count(),
    )


def _fill(project: Project) -> None:
    drawn = {scene.id: scenes.draw_all(scene, seed=SEED) for scene in scenes.SCENES}
    if not project.prompts.exists():
        _import(project, drawn)
    with transaction.atomic():
        world = _World(project, drawn)
        world.vote_on_pairs()
        for scene in scenes.SCENES[:: len(scenes.SCENES) // RANKED]:
            world.judge_all(scene, "ranking")
            world.judge_all(scene, "checklist")
        world.count()


def _import(project: Project, drawn: dict[str, list[Drawn]]) -> None:
    """Through the same door as anybody's zip."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scenes.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("scenes.jsonl", b"".join(_line(s, drawn[s.id]) for s in scenes.SCENES))
            for pictures in drawn.values():
                for at, picture in enumerate(pictures):
                    archive.writestr(f"images/{picture.scene}-{at}.png", picture.png)
        imports.import_file(project=project, path=path, format="images")


def _line(scene: Scene, pictures: Sequence[Drawn]) -> bytes:
    row = {
        "id": scene.id,
        "prompt": scene.text,
        "tags": [name.lower() for name in scene.criteria],
        "images": [
            {"path": f"images/{scene.id}-{at}.png", "generator": picture.model}
            for at, picture in enumerate(pictures)
        ],
    }
    return orjson.dumps(row) + b"\n"


class _World:
    """The imported project beside what is known of its pictures."""

    def __init__(self, project: Project, drawn: dict[str, list[Drawn]]) -> None:
        self.project = project
        self.options = project.options
        self.drawn = drawn
        self.prompts = {prompt.external_id: prompt for prompt in project.prompts.all()}
        self.began = timezone.now() - timedelta(days=9)
        self.rng = np.random.default_rng(SEED)
        self.raters: dict[str, Rater] = {}
        names = {prompt.pk: name for name, prompt in self.prompts.items()}
        self.picture: dict[int, Drawn] = {}
        self.ids: dict[tuple[str, str], int] = {}
        self.hashes: dict[int, bytes] = {}
        for response in Response.objects.filter(project=project):
            scene = names[response.prompt_id]
            found = next(one for one in drawn[scene] if one.model == response.generator)
            self.picture[response.pk] = found
            self.ids[scene, response.generator] = response.pk
            self.hashes[response.pk] = bytes(response.content_hash)

    def vote_on_pairs(self) -> None:
        """The raters of the first project, who go by how much of the prompt a picture meets."""
        tasks = {frozenset(task.response_ids): task for task in self.project.tasks.all()}
        for task in tasks.values():
            fails = [self._fails(pk) for pk in task.response_ids]
            ranks = dense([-count for count in fails])
            gap = min(abs(fails[0] - fails[1]), 2)
            task.gold = Verdict(ranks=ranks, strength=gap).as_gold()
        Task.objects.bulk_update(tasks.values(), ["gold"])
        prompts = [self._as_prompt(scene) for scene in scenes.SCENES]
        votes = simulate.simulate_votes(prompts, simulate.load_raters(), overlap=OVERLAP, seed=SEED)
        for vote in votes:
            pictures = [self.drawn[vote.prompt_id][at] for at in vote.pair]
            pair = [self.ids[vote.prompt_id, picture.model] for picture in pictures]
            task = tasks.get(frozenset(pair))
            if task is not None:
                self._record_vote(task, vote, flipped=task.response_ids != pair)

    def _fails(self, response_id: int) -> int:
        return sum(self.picture[response_id].failed.values())

    def _as_prompt(self, scene: Scene) -> simulate.DemoPrompt:
        return simulate.DemoPrompt(
            id=scene.id,
            category="scene",
            messages=({"role": "user", "content": scene.text},),
            responses=tuple(
                # Texts of one length: who goes by length has nothing to go by.
                simulate.DemoResponse("picture", one.model, {}, one.quality, one.flaw)
                for one in self.drawn[scene.id]
            ),
        )

    def _record_vote(self, task: Task, vote: simulate.SimulatedVote, *, flipped: bool) -> None:
        ranks = {"a": [1, 2], "b": [2, 1], "tie": [1, 1]}[vote.outcome]
        shown = list(vote.shown_order)
        verdict = Verdict(
            ranks=ranks[::-1] if flipped else ranks,
            strength=vote.strength,
            both_bad=vote.both_bad,
            rationale=vote.rationale,
            active_ms=vote.active_ms,
        )
        self._record(
            task,
            vote.rater,
            verdict,
            shown=[1 - place for place in shown] if flipped else shown,
            at=self.began + timedelta(seconds=vote.seconds),
        )

    def judge_all(self, scene: Scene, of: str) -> None:
        """One task of another kind on all pictures of a scene, judged by some raters."""
        ids = [self.ids[scene.id, picture.model] for picture in self.drawn[scene.id]]
        prompt = self.prompts[scene.id]
        known = [self.hashes[pk] for pk in ids]
        truth = self._truth(ids, of)
        task = Task.objects.create(
            project=self.project,
            prompt=prompt,
            kind=of,
            response_ids=ids,
            content_hash=hashing.of_task(of, bytes(prompt.content_hash), known),
            overlap=1,
            free=1,
            position=self.project.tasks.count() + 1,
            gold=truth.as_gold(),
        )
        names = [rater.name for rater in simulate.load_raters()]
        for name in self.rng.choice(names, size=CHECKS, replace=False):
            hours = float(self.rng.uniform(1, 200))
            self._record(
                task,
                str(name),
                self._seen(ids, of),
                shown=[int(place) for place in self.rng.permutation(len(ids))],
                at=self.began + timedelta(hours=hours),
            )

    def _truth(self, ids: list[int], of: str) -> Verdict:
        if of == "ranking":
            ranks = dense([-self._fails(pk) for pk in ids])
            return Verdict(ranks=ranks, strength=widest(ranks))
        return checked(self._ticks(ids, slip=0), options=self.options)

    def _seen(self, ids: list[int], of: str) -> Verdict:
        """The truth as somebody sees it who slips now and then."""
        active_ms = round(float(self.rng.lognormal(10.2, 0.3)))
        if of == "ranking":
            felt = [self.picture[pk].quality + float(self.rng.normal(0, 0.08)) for pk in ids]
            ranks = dense([round(value, 1) for value in felt])
            return Verdict(ranks=ranks, strength=widest(ranks), active_ms=active_ms)
        seen = checked(self._ticks(ids, slip=SLIP), options=self.options)
        return Verdict(seen.ranks, seen.strength, ratings=seen.ratings, active_ms=active_ms)

    def _ticks(self, ids: list[int], *, slip: float) -> dict[str, list[int | None]]:
        """For each failure and picture 1 where it is seen, 0 where not, None where impossible."""
        return {
            name: [self._tick(self.picture[pk].failed.get(name), slip) for pk in ids]
            for name in scenes.FAILURES
        }

    def _tick(self, failed: bool | None, slip: float) -> int | None:
        if failed is None:
            return None
        return int(failed != (slip > 0 and self.rng.random() < slip))

    def _record(
        self, task: Task, by: str, verdict: Verdict, *, shown: list[int], at: datetime
    ) -> None:
        if by not in self.raters:
            self.raters[by] = raters.imported(project=self.project, name=by, is_simulated=True)
        verdict.check(responses=len(task.response_ids))
        values: dict[str, Any] = {
            name: getattr(verdict, name)
            for name in ("ranks", "strength", "both_bad", "ratings", "rationale", "active_ms")
        }
        judgment = Judgment.objects.create(
            project=self.project,
            task=task,
            rater=self.raters[by],
            kind=Judgment.Kind.IMPORTED,
            shown_order=shown,
            first_paint_at=at - timedelta(milliseconds=verdict.active_ms or 0),
            submitted_at=at,
            **values,
        )
        judgments.write_preferences(judgment=judgment, task=task, options=self.options)

    def count(self) -> None:
        """Every rater's own count of judgments."""
        for rater in self.raters.values():
            rater.judged = rater.judgments.filter(is_current=True).count()
            rater.save(update_fields=["judged"])
