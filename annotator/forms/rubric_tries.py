"""What a rubric is tried on: a pair that is pasted, or one of the project's own."""

from __future__ import annotations

from typing import Any, Final

from django import forms

from annotator.models import Judge, RubricVersion
from annotator.queries import rubric_tries as queries
from annotator.services import rubric_tries as service
from annotator.services.rubric_tries import MAX_ANSWER, MAX_PROMPT, Subject

BIGGEST: Final = 2**63 - 1


def _area(label: str, *, most: int, rows: int, required: bool = True) -> forms.CharField:
    widget = forms.Textarea(attrs={"rows": rows, "dir": "auto"})
    return forms.CharField(
        label=label, max_length=most, required=required, strip=False, widget=widget
    )


class AskForm(forms.Form):
    """Whom to ask about the criteria that a language model checks; not shown where none does."""

    def __init__(self, *args: Any, version: RubricVersion, asks: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.version = version
        if not asks:
            return
        judges = queries.askable(version.rubric.project)
        verifier = service.verifier_of(version)
        own = verifier if verifier in judges else None
        rows = Judge.objects.filter(pk__in=[one.pk for one in judges]).select_related("endpoint")
        self.fields["judge"] = forms.ModelChoiceField(
            rows.order_by("name", "-version"),
            required=False,
            initial=own,
            empty_label=None if own else "Nobody: programs alone",
            label="Asked of the model of",
        )

    @property
    def whom(self) -> Judge | None:
        """The judge that was chosen."""
        return self.cleaned_data.get("judge")


class PasteForm(AskForm):
    """A prompt and one or two answers as text."""

    prompt = _area("Prompt", most=MAX_PROMPT, rows=2)
    a = _area("Answer A", most=MAX_ANSWER, rows=7)
    b = _area("Answer B", most=MAX_ANSWER, rows=7, required=False)

    def subject(self) -> Subject:
        """Raises annotator.errors.Invalid."""
        data = self.cleaned_data
        return service.paste(prompt=data["prompt"], answers=[data["a"], data["b"]])


class PickForm(AskForm):
    """Two answers of the project."""

    first = forms.IntegerField(min_value=1, max_value=BIGGEST, widget=forms.HiddenInput)
    second = forms.IntegerField(min_value=1, max_value=BIGGEST, widget=forms.HiddenInput)

    def subject(self) -> Subject:
        """Raises annotator.errors.NotFound."""
        data = self.cleaned_data
        return service.pick(
            project=self.version.rubric.project, response_ids=(data["first"], data["second"])
        )
