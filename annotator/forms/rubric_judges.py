"""A judge made of a version of a rubric, in one step."""

from __future__ import annotations

from typing import Any, Final

from django import forms

from annotator.models import Endpoint, Judge, Project, RubricVersion
from annotator.services.judges import MAX_MODEL, MAX_NAME
from rubrics.judging import ASKING

HOW: Final = [
    ("llm", "Reads the whole rubric and compares two answers, in both orders"),
    ("rubric", "Checks criterion by criterion, one answer at a time, then sums up"),
]


class RubricJudgeForm(forms.Form):
    """A name, who is asked and how. What is not asked here has its usual value."""

    name = forms.CharField(
        max_length=MAX_NAME, help_text="A name that exists already gets a new version."
    )
    kind = forms.ChoiceField(choices=HOW, initial="llm", widget=forms.RadioSelect, label="How")
    endpoint = forms.ModelChoiceField(Endpoint.objects.none(), required=False, label="Endpoint")
    model = forms.CharField(
        max_length=MAX_MODEL,
        required=False,
        label="Model",
        help_text="As the endpoint calls it.",
        widget=forms.TextInput(attrs={"spellcheck": "false"}),
    )

    def __init__(
        self, data: Any = None, *, project: Project, version: RubricVersion, needs_model: bool
    ) -> None:
        usual = usual_of(project, version)
        name = " ".join(version.rubric.name.replace("@", " ").split())
        initial = {"name": name[:MAX_NAME], **usual}
        super().__init__(data, initial=initial, auto_id="judge-%s")
        rows = project.endpoints.filter(archived_at=None).order_by("name")
        self.needs_model = needs_model
        field = self.fields["endpoint"]
        field.queryset = rows
        field.empty_label = None if needs_model else "None: programs check every criterion"

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        asks = self.needs_model or data.get("kind") == "llm"
        for name, message in (
            ("endpoint", "Choose the endpoint to ask."), ("model", "Name the model to ask.")
        ):  # fmt: skip
            if asks and name not in self.errors and not data.get(name):
                self.add_error(name, message)
        return data

    def values(self) -> dict[str, Any]:
        """What services.judges.add is asked for."""
        data = self.cleaned_data
        return {
            "name": data["name"],
            "kind": data["kind"],
            "endpoint": data["endpoint"],
            "options": {"models": [data["model"]] if data["model"] else []},
        }


def usual_of(project: Project, version: RubricVersion) -> dict[str, Any]:
    """Who checked the version's criteria; else the newest judge of the project that asks."""
    verifier = version.verifier
    if verifier is None or verifier.endpoint_id is None or verifier.endpoint.archived_at:
        rows = Judge.objects.filter(
            project=project, kind__in=ASKING, archived_at=None,
            endpoint__isnull=False, endpoint__archived_at=None,
        )  # fmt: skip
        verifier = rows.order_by("-pk").first()
    if verifier is None:
        first = project.endpoints.filter(archived_at=None).order_by("name").first()
        return {"endpoint": first.pk if first else None}
    models = verifier.options.get("models") or [""]
    return {"endpoint": verifier.endpoint_id, "model": models[0]}
