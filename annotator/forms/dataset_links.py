"""The form that makes a link to a dataset's file."""

from __future__ import annotations

from django import forms

from annotator.models import DatasetVersion
from annotator.services.deliveries import ARCHIVE, file_names
from annotator.services.links import LIFETIMES


class LinkForm(forms.Form):
    """Which file, and for how long."""

    name = forms.ChoiceField(label="File")
    lifetime = forms.ChoiceField(
        label="Works for",
        choices=[(key, label) for key, (label, _) in LIFETIMES.items()],
        initial="1d",
    )

    def __init__(self, *args: object, version: DatasetVersion) -> None:
        super().__init__(*args)
        names = file_names(version)
        self.fields["name"].choices = [
            *((name, name) for name in names),
            (ARCHIVE, "all of them, as a ZIP archive"),
        ]
