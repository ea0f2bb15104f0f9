"""Forms of rubrics that come from elsewhere: a file, or somebody who writes."""

from __future__ import annotations

from django import forms

from annotator.services.rubrics import MAX_NAME


class RubricFileForm(forms.Form):
    """A file as services.rubric_files writes it."""

    file = forms.FileField(
        label="File",
        max_length=1000,
        help_text="JSON, in the form on this page.",
        error_messages={"required": "Choose a file.", "empty": "The file is empty."},
    )
    name = forms.CharField(
        max_length=MAX_NAME,
        required=False,
        label="Rubric",
        help_text="Empty: as the file says. A rubric of this name gets its next draft.",
    )


class NewRubricForm(forms.Form):
    """A rubric to be written by hand."""

    name = forms.CharField(
        max_length=MAX_NAME, help_text="What it says a good answer is, in brief."
    )
