"""Try it: what a version of a rubric says of a pair, criterion by criterion."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_http_methods

from annotator import rendering
from annotator.errors import AppError
from annotator.forms.rubric_tries import AskForm, PasteForm, PickForm
from annotator.jobs import base
from annotator.models import Criterion, Project, Role, RubricVersion, Run
from annotator.queries import rubric_tries as queries
from annotator.queries.rubric_tries import Stored
from annotator.services import rubric_tries as service
from annotator.services import rubrics
from annotator.services.rubric_tries import Subject
from annotator.views import rubric_try_table
from annotator.views.helpers import Access, as_id, project_page
from annotator.views.rubric_pages import find


@project_page(Role.REVIEWER)
@require_http_methods(["GET", "POST"])
def rubric_try(request: HttpRequest, access: Access, rubric_id: int, number: int) -> HttpResponse:
    """The form, with the pair or the run that the address names; a POST tries it."""
    page = _Page(request, access, find(access, rubric_id, number))
    if request.method == "POST":
        return page.attempt()
    if (run_id := as_id(request.GET.get("run", ""))) is not None:
        return page.of_run(run_id)
    if request.GET.get("pick") == "random":
        return page.random()
    ids = [as_id(request.GET.get(name, "")) for name in ("chosen", "rejected")]
    if None not in ids:
        # In order of id, so that the place says nothing of which one was preferred.
        return page.of_pair(tuple(sorted(pk for pk in ids if pk is not None)))
    return page.show(page.paste_form())


class _Page:
    """One request for the page."""

    def __init__(self, request: HttpRequest, access: Access, version: RubricVersion) -> None:
        self.request, self.access, self.version = request, access, version
        self.project = access.project
        criteria = rubrics.in_force(version)
        self.count = len(criteria)
        self.asked = sum(one.verifier == Criterion.Verifier.LLM for one in criteria)
        self._how = {"version": version, "asks": bool(self.asked)}

    @property
    def is_images(self) -> bool:
        return self.project.modality == Project.Modality.IMAGE

    def paste_form(self, **initial: Any) -> AskForm:
        return PasteForm(initial=initial, **self._how)

    def attempt(self) -> HttpResponse:
        """Begin it; where nobody has to be asked the result is there at once."""
        kind = PickForm if "first" in self.request.POST else PasteForm
        form = kind(self.request.POST, **self._how)
        if not form.is_valid():
            return self.show(form, pair=self._pair_of(form), status=422)
        try:
            with transaction.atomic():
                begun = service.begin(
                    version=self.version, subject=form.subject(), judge=form.whom,
                    by=self.request.user,
                )  # fmt: skip
                if isinstance(begun, Run):
                    base.enqueue(begun)
        except AppError as error:
            form.add_error(None, f"{error.message} {error.advice}".strip())
            return self.show(form, pair=self._pair_of(form), status=error.status)
        if isinstance(begun, Run):
            return redirect(f"{self.address}?run={begun.pk}")
        return self.show(form, pair=self._pair_of(form), result=begun)

    def of_run(self, run_id: int) -> HttpResponse:
        """What a run found, or how far it is; for htmx only that part."""
        run = queries.find_run(self.version, run_id)
        if run is None:
            raise Http404("no such try of this version")
        result = run.result or None
        if self.request.htmx:
            return self._render("rubrics/try.html#result", run=run, result=result)
        subject = Subject.from_json(run.config["subject"])
        if subject.response_ids:
            pair = queries.stored(self.project, subject.response_ids)
            form = self._pick_form(subject.response_ids)
        else:
            pair = None
            texts = dict(zip(("a", "b"), subject.answers, strict=False))
            form = self.paste_form(prompt=subject.prompt, **texts)
        if "judge" in form.fields:
            form.initial["judge"] = run.config["judge"]
        return self.show(form, pair=pair, run=run, result=result)

    def of_pair(self, ids: tuple[int, ...]) -> HttpResponse:
        """A stored pair; where programs can say everything, what they say."""
        pair = queries.stored(self.project, ids)
        if pair is None or len(ids) != len(set(ids)):
            raise Http404("no such pair in this project")
        result = None
        error = ""
        if self.count and not self.asked:
            subject = service.pick(project=self.project, response_ids=ids)
            try:
                result = service.begin(version=self.version, subject=subject, by=None)
            except AppError as refused:
                error = refused.message
        return self.show(self._pick_form(ids), pair=pair, result=result, error=error)

    def random(self) -> HttpResponse:
        found = queries.random_pair(self.project)
        if found is None:
            messages.info(self.request, "Nobody has compared answers to a held-out prompt yet.")
            return redirect(self.address)
        return redirect(f"{self.address}?{urlencode({'chosen': found[0], 'rejected': found[1]})}")

    @property
    def address(self) -> str:
        version = self.version
        return reverse("rubric_try", args=[self.project.slug, version.rubric_id, version.number])

    def _pick_form(self, ids: tuple[int, ...]) -> AskForm:
        initial = dict(zip(("first", "second"), ids, strict=False))
        return PickForm(initial=initial, **self._how)

    def _pair_of(self, form: AskForm) -> Stored | None:
        """The stored pair that a submitted form names."""
        given = getattr(form, "cleaned_data", {})
        ids = [given.get("first"), given.get("second")]
        if None in ids:
            return None
        try:
            service.pick(project=self.project, response_ids=ids)
        except AppError:
            return None
        return queries.stored(self.project, ids)

    def show(
        self,
        form: AskForm,
        *,
        pair: Stored | None = None,
        run: Run | None = None,
        result: dict[str, Any] | None = None,
        error: str = "",
        status: int = 200,
    ) -> HttpResponse:
        if isinstance(form, PickForm) and pair is None:  # gone, or never there
            error = error or "There are no such answers to one prompt in this project."
            form = self.paste_form()
        context = {
            "form": form,
            "pair": _shown(pair) if pair else None,
            "error": error,
            "count": self.count,
            "asked": self.asked,
            "is_images": self.is_images,
        }
        return self._render("rubrics/try.html", run=run, result=result, status=status, **context)

    def _render(
        self,
        template: str,
        *,
        run: Run | None,
        result: dict[str, Any] | None,
        status: int = 200,
        **context: Any,
    ) -> HttpResponse:
        context |= {
            "access": self.access,
            "version": self.version,
            "run": run,
            "table": rubric_try_table.table(result) if result else None,
        }
        return render(self.request, template, context, status=status)


def _shown(pair: Stored) -> dict[str, Any]:
    """A pair ready for the template: foreign text rendered through the allow-list."""
    return {
        "messages": rendering.render_messages(pair.prompt.messages),
        "answers": [
            {
                "name": name,
                "image": one.image,
                "text": one.text,
                "messages": rendering.render_messages(one.messages) if one.messages else None,
            }
            for name, one in zip(("A", "B"), pair.responses, strict=False)
        ],
    }
