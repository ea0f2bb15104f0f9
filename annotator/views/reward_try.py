"""Try a reward model: a prompt and answers, in the order in which it puts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from annotator import rendering
from annotator.errors import AppError
from annotator.forms.ensembles import WayForm, read_way
from annotator.forms.reward_tries import NAMES, AnswersForm, TryForm, TryPicturesForm
from annotator.jobs import base
from annotator.models import Image, Project, Prompt, Response, RewardModel, Role, Run
from annotator.queries import reward_asks as queries
from annotator.queries import reward_scores, rewards
from annotator.services import ensembles, hashing
from annotator.services import reward_asks as service
from annotator.services.ensembles import Way
from annotator.services.reward_asks import Asked, Item
from annotator.uploads import TRY_BYTES, was_too_large
from annotator.views import reward_try_table
from annotator.views.helpers import Access, as_id, page_after, project_page
from annotator.views.reward_try_table import Members, Table

MOST: Final = len(NAMES)


@project_page(Role.OWNER)
@require_http_methods(["GET", "POST"])
def reward_try(request: HttpRequest, access: Access, number: int) -> HttpResponse:
    """The form, with the prompt or the run that the address names; a POST asks the model."""
    model = rewards.find(access.project, number)
    if model is None:
        raise Http404("no such reward model in this project")
    page = _Page(request, access, model)
    if request.method == "POST":
        return page.attempt()
    if (run_id := page_after(request, "run")) is not None:
        return page.of_run(run_id)
    if request.GET.get("pick") == "random":
        return page.random()
    if (prompt_id := page_after(request, "prompt")) is not None:
        return page.of_prompt(prompt_id)
    return page.show(page.form())


class _Page:
    """One request for the page."""

    def __init__(self, request: HttpRequest, access: Access, model: RewardModel) -> None:
        self.request, self.access, self.model = request, access, model
        self.project = access.project
        self.is_images = self.project.modality == Project.Modality.IMAGE

    def form(self, **initial: str) -> AnswersForm:
        return (TryPicturesForm if self.is_images else TryForm)(initial=initial)

    @property
    def address(self) -> str:
        return reverse("reward_try", args=[self.project.slug, self.model.number])

    def attempt(self) -> HttpResponse:
        """Ask the model about what was pasted, or about the answers to a stored prompt."""
        if "stored" in self.request.POST:
            return self._attempt_stored()
        form: AnswersForm = TryForm(self.request.POST)
        if self.is_images:
            form = TryPicturesForm(self.request.POST, self.request.FILES)
        if was_too_large(self.request):
            form.add_error(None, f"The pictures are over {TRY_BYTES // 1024**2} MB together.")
            return self.show(form, status=413)
        if not form.is_valid():
            return self.show(form, status=422)
        try:
            return self._ask(self._in_its_way(form.asked()))
        except AppError as error:
            form.add_error(None, f"{error.message} {error.advice}".strip())
            return self.show(form, status=error.status)

    def _attempt_stored(self) -> HttpResponse:
        prompt, answers = self._stored(as_id(self.request.POST.get("stored", "")) or 0)
        try:
            return self._ask(self._in_its_way(_asked_of(prompt, answers)))
        except AppError as error:
            messages.error(self.request, f"{error.message} {error.advice}".strip())
            return redirect(f"{self.address}?prompt={prompt.pk}")

    def _in_its_way(self, asked: Asked) -> Asked:
        """The request with the way in which somebody wants members combined. Raises Invalid."""
        return replace(asked, **read_way(self.request.POST).as_json())

    def _ask(self, asked: Asked) -> HttpResponse:
        with transaction.atomic():
            run = service.begin(model=self.model, asked=asked, by=self.request.user)
            base.enqueue(run)
        return redirect(f"{self.address}?run={run.pk}")

    def _stored(self, prompt_id: int) -> tuple[Prompt, list[Response]]:
        found = queries.stored_prompt(self.project, prompt_id, most=MOST)
        if found is None:
            raise Http404("no such prompt with two answers in this project")
        return found

    def of_prompt(self, prompt_id: int) -> HttpResponse:
        """A stored prompt; with the stored scores of its answers where all have one."""
        prompt, answers = self._stored(prompt_id)
        ids = [one.pk for one in answers]
        scores = reward_scores.model_scores(self.model.pk, ids)
        table = None
        if len(scores) == len(ids):
            raw = [scores[pk] for pk in ids]
            spreads = reward_scores.model_variances(self.model.pk, ids)
            members = self._members([spreads.get(pk) for pk in ids], ensembles.way_of(self.model))
            texts = [_text(one) for one in answers]
            table = self._table(texts, raw, ids, _images(answers), members=members)
        return self.show(None, stored=(prompt, answers), table=table)

    def of_run(self, run_id: int) -> HttpResponse:
        """What a run found, or how far it is; for htmx only that part."""
        run = queries.find_run(self.model, run_id)
        if run is None:
            raise Http404("no such request to this model")
        asked = Asked.from_json(run.config["request"])
        if len(asked.items) > MOST:  # sent by a program: its page is that of any run
            return redirect("run", slug=self.project.slug, run_id=run.pk)
        table = self._table_of(run, asked) if run.result else None
        if self.request.htmx:
            return self._render("rewards/try.html#result", run=run, table=table)
        if asked.answers:
            found = Response.objects.filter(project=self.project, pk__in=asked.answers)
            answers = list(found.select_related("prompt", "image").order_by("pk"))
            if answers:
                stored = (answers[0].prompt, answers)
                return self.show(None, stored=stored, run=run, table=table)
        initial = {"prompt": _plain(asked.items[0].prompt)} if self.is_images else _initial(asked)
        sent = self._sent(asked) if self.is_images else []
        return self.show(self.form(**initial), run=run, table=table, sent=sent)

    def random(self) -> HttpResponse:
        found = queries.random_prompt(self.project)
        if found is None:
            messages.info(self.request, "Nobody has compared answers to a held-out prompt yet.")
            return redirect(self.address)
        return redirect(f"{self.address}?prompt={found.pk}")

    def _sent(self, asked: Asked) -> list[dict[str, Any]]:
        """The pictures of a request in its order, as far as they are still there."""
        names = [one.response["image"] for one in asked.items if isinstance(one.response, dict)]
        rows = Image.objects.filter(project=self.project, file__in=names)
        known = {one.file.name: one for one in rows}
        shown = zip(NAMES, [known.get(name) for name in names], strict=False)
        return [{"name": name, "image": image} for name, image in shown]

    def _table_of(self, run: Run, asked: Asked) -> Table:
        texts = [_plain(one.response) for one in asked.items]
        ids: list[int | None] = list(asked.answers)
        members = self._members(run.result.get("variance"), asked.way)
        if self.is_images:
            images = [one["image"] for one in self._sent(asked)]
            return self._table(texts, run.result["raw"], ids, images, members=members)
        if not ids and len({repr(one.prompt) for one in asked.items}) == 1:
            key = hashing.of_prompt(asked.items[0].prompt)
            ids = queries.same_answers(self.project.pk, key, texts)
        return self._table(texts, run.result["raw"], ids, members=members)

    def _members(self, variance: Sequence[float | None] | None, way: Way) -> Members | None:
        """What is shown of an ensemble's members; nothing of a single model."""
        count = self.model.members
        if count == 1 or variance is None:
            return None
        return Members(count, variance, str(way), ensembles.unit_of(self.model))

    def _table(
        self,
        texts: list[str],
        raw: list[Any],
        ids: list[Any],
        images: Sequence[Image | None] = (),
        *,
        members: Members | None,
    ) -> Table:
        known = [pk for pk in ids if pk is not None]
        return reward_try_table.table(
            texts, raw, objective=self.model.objective, ids=ids, images=images,
            reference=queries.reference_of(self.model),
            votes=queries.votes_among(self.project.pk, known) if len(known) > 1 else {},
            members=members,
        )  # fmt: skip

    def show(
        self,
        form: AnswersForm | None,
        *,
        stored: tuple[Prompt, list[Response]] | None = None,
        run: Run | None = None,
        table: Table | None = None,
        sent: Sequence[Mapping[str, Any]] = (),
        status: int = 200,
    ) -> HttpResponse:
        context = {
            "form": form,
            "stored": _shown(*stored) if stored else None,
            "sent": sent,
            "is_images": self.is_images,
            "way": self._way_form(run),
        }
        return self._render("rewards/try.html", run=run, table=table, status=status, **context)

    def _way_form(self, run: Run | None) -> WayForm | None:
        """What asks how members are combined, as it was asked before; None of a single model."""
        if self.model.members == 1:
            return None
        if self.request.method == "POST":
            return WayForm(self.request.POST)
        return WayForm.of(Asked.from_json(run.config["request"]).way if run else Way())

    def _render(
        self, template: str, *, run: Run | None, table: Table | None, status: int = 200,
        **context: Any,
    ) -> HttpResponse:  # fmt: skip
        context |= {"access": self.access, "model": self.model, "run": run, "table": table}
        return render(self.request, template, context, status=status)


def _asked_of(prompt: Prompt, answers: list[Response]) -> Asked:
    turns = service.clean_turns(prompt.messages)
    items = [Item(turns, _answer(one)) for one in answers]
    return service.make(items, answers=[one.pk for one in answers])


def _answer(one: Response) -> service.Answer:
    if one.image is not None:
        return {"image": one.image.file.name}
    found: service.Answer = one.messages or one.text
    return found


def _images(answers: Sequence[Response]) -> list[Image | None]:
    """Their pictures; none where they are texts."""
    return [one.image for one in answers] if all(one.image for one in answers) else []


def _initial(asked: Asked) -> dict[str, str]:
    found = {"prompt": _plain(asked.items[0].prompt)}
    for name, one in zip(NAMES, asked.items, strict=False):
        found[name.lower()] = _plain(one.response)
    return found


def _plain(text: Any) -> str:
    """A text, or messages as text; what one person says alone is that. Nothing of a picture."""
    if isinstance(text, dict):
        return ""
    if isinstance(text, str):
        return text
    if len(text) == 1:
        return str(text[0]["content"])
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in text)


def _text(answer: Response) -> str:
    return _plain(answer.messages) if answer.messages else answer.text


def _shown(prompt: Prompt, answers: list[Response]) -> dict[str, Any]:
    """A stored prompt ready for the template: foreign text rendered through the allow-list."""
    return {
        "id": prompt.pk,
        "split": prompt.split,
        "messages": rendering.render_messages(prompt.messages),
        "answers": [
            {
                "name": name,
                "text": one.text,
                "image": one.image,
                "messages": rendering.render_messages(one.messages) if one.messages else None,
            }
            for name, one in zip(NAMES, answers, strict=False)
        ],
    }
