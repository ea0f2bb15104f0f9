"""Forms about one's own account."""

from __future__ import annotations

from typing import Any

from django import forms

from annotator.models import User


class SignupForm(forms.Form):
    """The fields that signing up asks beyond e-mail and password."""

    name = forms.CharField(
        max_length=120,
        label="Name",
        widget=forms.TextInput(attrs={"autocomplete": "name", "autofocus": True}),
        help_text="Shown to the owners and reviewers of your projects.",
    )

    field_order = ("name", "email", "password1")

    def signup(self, request: Any, user: User) -> None:
        """Called by django-allauth once the account is saved; the adapter has set the name."""


class PreferencesForm(forms.ModelForm):
    class Meta:
        model = User
        fields = ["name", "single_keys", "theme"]
        widgets = {
            "theme": forms.Select(
                choices=[("", "As the system"), ("light", "Light"), ("dark", "Dark")]
            )
        }
        help_texts = {
            "single_keys": "One-letter keys on the annotation page. Enter always saves.",
        }


class TokenForm(forms.Form):
    """Stands on the page of ``PreferencesForm``, so its controls have ids of their own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, auto_id="token_%s", **kwargs)

    name = forms.CharField(
        max_length=80,
        label="Name of a new token",
        help_text="What will use it, such as “nightly export”.",
    )
