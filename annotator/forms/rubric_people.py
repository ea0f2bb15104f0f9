"""A form: which answers people check under a version of a rubric, and how often."""

from __future__ import annotations

from typing import Any, Final

from django import forms

from annotator.kinds.checklist import Checklist
from annotator.models import Project, Split
from annotator.queries import members as people
from annotator.services import tasks
from annotator.services.rubric_tasks import MAX_SEED, MOST, SAMPLES, Wish

ALL: Final = ""


class PeopleForm(forms.Form):
    which = forms.ChoiceField(label="Which answers", choices=list(SAMPLES.items()))
    number = forms.IntegerField(label="Tasks", min_value=1, max_value=MOST, initial=60)
    overlap = forms.IntegerField(
        label="People per task", min_value=1, max_value=tasks.MAX_OVERLAP, initial=2
    )
    split = forms.ChoiceField(label="Split", choices=[(ALL, "All"), *Split.choices], required=False)
    group = forms.ChoiceField(label="For", required=False)
    priority = forms.IntegerField(
        label="Priority", min_value=-tasks.MAX_PRIORITY, max_value=tasks.MAX_PRIORITY, initial=0
    )
    size = forms.IntegerField(
        label="Answers per task at most", min_value=1, max_value=Checklist.most, initial=4
    )
    seed = forms.CharField(label="Seed", max_length=MAX_SEED, required=False)
    with_machines = forms.BooleanField(label="Also what a program checks", required=False)

    def __init__(self, project: Project, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._project = project
        groups = people.groups(project)
        choices = [(f"group-{one.pk}", one.label) for one in groups if not one.person_id]
        choices += [(f"rater-{one.pk}", one.name) for one in people.raters(project)]
        self.fields["group"].choices = [(ALL, "Everybody"), *choices]
        for field in self.fields.values():
            field.widget.attrs["autocomplete"] = "off"

    def wish(self) -> Wish:
        """What was asked for. Raises Invalid for a group that is gone."""
        given = self.cleaned_data
        split = given["split"]
        return Wish(
            which=given["which"],
            number=given["number"],
            size=given["size"],
            overlap=given["overlap"],
            priority=given["priority"],
            group=tasks.assignee(project=self._project, value=given["group"]),
            splits=(split,) if split else tuple(Split.values),
            seed=given["seed"],
            with_machines=given["with_machines"],
        )
