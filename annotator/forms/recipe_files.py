"""The form that takes a recipe from a file."""

from __future__ import annotations

from django import forms

from annotator.services.recipes import MAX_NAME


class RecipeFileForm(forms.Form):
    file = forms.FileField(
        label="File",
        max_length=1000,
        help_text="JSON or TOML with format and options.",
        error_messages={"required": "Choose a file.", "empty": "The file is empty."},
    )
    name = forms.CharField(
        label="Name",
        max_length=MAX_NAME,
        required=False,
        help_text="Empty: the name in the file. A name that is there gets its next version.",
    )
