"""Forms about members and invitations."""

from __future__ import annotations

from django import forms

from annotator.models import Role
from annotator.services.members import MAX_DAYS, MAX_PLACES


class RoleForm(forms.Form):
    role = forms.ChoiceField(choices=Role.choices)


class LimitsForm(forms.Form):
    """Limits of one person; an empty one is the project's, 0 is none."""

    quota = forms.IntegerField(min_value=0, max_value=10_000_000, required=False)
    daily_cap = forms.IntegerField(min_value=0, max_value=100_000, required=False)


class InviteForm(forms.Form):
    role = forms.ChoiceField(
        choices=[
            (Role.ANNOTATOR, "Annotator: judges tasks"),
            (Role.REVIEWER, "Reviewer: also sees judgments and runs, and decides what is in doubt"),
            (Role.OWNER, "Owner: may do everything"),
        ],
        initial=Role.ANNOTATOR,
    )
    places = forms.IntegerField(
        min_value=1,
        max_value=MAX_PLACES,
        initial=1,
        label="Places",
        help_text="How many people may use the link.",
    )
    days = forms.IntegerField(min_value=1, max_value=MAX_DAYS, initial=14, label="Open for, days")
    note = forms.CharField(
        max_length=120,
        required=False,
        help_text="For you: who it is for. Not shown to those invited.",
    )
