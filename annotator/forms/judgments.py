"""A verdict as the annotation page sends it."""

from __future__ import annotations

from typing import Any

from django import forms

from annotator.models import ProjectSettings
from annotator.services.judgments import MAX_RATIONALE, Verdict, pairwise_verdict


class JudgmentForm(forms.Form):
    verdict = forms.ChoiceField(
        choices=[(step, step) for step in ("a2", "a1", "tie", "b1", "b2")],
        error_messages={
            "required": "Choose which answer is better, or a tie.",
            "invalid_choice": "Choose one of the steps shown.",
        },
    )
    both_bad = forms.BooleanField(required=False)
    why = forms.CharField(
        required=False,
        max_length=MAX_RATIONALE,
        error_messages={"max_length": f"Keep the reason under {MAX_RATIONALE:,} characters."},
    )

    def __init__(self, *args: Any, options: ProjectSettings, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.options = options

    def clean_verdict(self) -> str:
        choice = self.cleaned_data["verdict"]
        if choice == "tie" and not self.options.allow_tie:
            raise forms.ValidationError("This project asks you to choose one of the two.")
        return choice

    def clean_both_bad(self) -> bool:
        return self.cleaned_data["both_bad"] and self.options.allow_both_bad

    def clean_why(self) -> str:
        why = self.cleaned_data["why"].strip()
        if self.options.rationale == "required" and not why:
            raise forms.ValidationError("Say why in a few words.")
        return "" if self.options.rationale == "off" else why

    def to_verdict(self, shown_order: list[int]) -> Verdict:
        """The verdict in canonical order, given the order in which the answers were shown."""
        return pairwise_verdict(
            choice=self.cleaned_data["verdict"],
            shown_order=shown_order,
            both_bad=self.cleaned_data["both_bad"],
            rationale=self.cleaned_data["why"],
        )
