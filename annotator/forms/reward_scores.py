"""A form: which responses a version of a rubric scores, how, and with what budget."""

from __future__ import annotations

from typing import Any, Final

from django import forms

from annotator.models import Judge, RubricVersion, Split
from annotator.queries import reward_scores as queries
from annotator.services import reward_scores
from annotator.services.reward_scores import FORMS
from annotator.services.rubric_rewards import default_form
from rubrics.judging import ASKING
from rubrics.llm.budget import Budget
from rubrics.rewards import WORTH

ALL: Final = ""
SHOWN_JUDGES: Final = 100
FORM_WORDS: Final = {"weighted": "Weighted sum", "share": "Share satisfied"}
WORTH_WORDS: Final = {"satisfied": "satisfied", "half": "half", "unsatisfied": "not satisfied"}


class RewardScoreForm(forms.Form):
    """``judge`` is there where a language model checks criteria."""

    form = forms.ChoiceField(
        label="Reward", choices=[(key, FORM_WORDS[key]) for key in FORMS], required=False
    )
    not_applicable = forms.ChoiceField(
        label="In a share, n/a counts as",
        choices=[(key, WORTH_WORDS[key]) for key in WORTH],
        required=False,
    )
    judge = forms.ModelChoiceField(label="Verifier", queryset=Judge.objects.none(), required=False)
    only = forms.ChoiceField(
        label="Answers",
        choices=[(key, words.capitalize()) for key, words in queries.ONLY.items()],
        required=False,
    )
    split = forms.ChoiceField(label="Split", choices=[(ALL, "All"), *Split.choices], required=False)
    sample = forms.IntegerField(
        label="At most", min_value=1, max_value=reward_scores.MOST, required=False
    )
    calls = forms.IntegerField(
        label="Budget, calls", min_value=1, max_value=reward_scores.MOST, required=False
    )

    def __init__(self, version: RubricVersion, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.version = version
        self.asked = reward_scores.criteria_asked(version)
        criteria = list(version.criteria.filter(decision="accepted"))
        self.fields["form"].initial = default_form(criteria)
        if self.asked:
            rows = Judge.objects.filter(
                project=version.rubric.project_id, kind__in=ASKING, archived_at=None,
                endpoint__archived_at=None,
            )  # fmt: skip
            self.fields["judge"].queryset = rows.select_related("endpoint")
            self.fields["judge"].initial = version.verifier_id
        else:
            del self.fields["judge"]
            del self.fields["calls"]
        for field in self.fields.values():
            field.widget.attrs["autocomplete"] = "off"

    def settings(self) -> dict[str, Any]:
        """What services.reward_scores.start takes."""
        given = self.cleaned_data
        return {
            "form": given["form"],
            "not_applicable": given["not_applicable"],
            "judge": given.get("judge"),
            "only": given["only"] or queries.ALL,
            "splits": [given["split"]] if given["split"] else [],
            "sample": given["sample"],
            "budget": Budget(calls=given.get("calls")),
        }
