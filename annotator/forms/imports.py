"""The form that imports a file: what it is, which column holds what, who signs its labels."""

from __future__ import annotations

from typing import Any, Final

from django import forms
from pydantic import ValidationError

from annotator.importers import IMPORTERS
from annotator.importers.labels import SCHEME_LABELS
from annotator.importers.types import (
    AUTO,
    DEFAULT_RATER,
    FIELDS,
    MAX_NAME,
    SEVERAL,
    Options,
)
from annotator.kinds import KINDS
from rubrics.registry import choices

PAIRS: Final = (
    ("auto", "Every pair of up to 4 answers, else each with the next"),
    ("all", "Every pair"),
    ("ring", "Each with the next, in a ring"),
    ("none", "None: keep the answers, make no tasks"),
)
PEOPLE: Final = (
    ("open", "People judge the tasks too"),
    ("labels-only", "Only the labels are kept, nobody is asked"),
)
MAX_COLUMNS_TEXT: Final = 10_000


OPTIONS: Final = ("rater", "judges", "labels", "pairs", "kind", "people", "values", "stand_ins")


class ImportForm(forms.Form):
    """``again``: a file that is here already is read once more, so none is asked for."""

    file = forms.FileField(
        label="File",
        max_length=1000,
        help_text="JSON Lines, JSON, CSV, TSV or Parquet, plain or gzipped; or a zip of one such file and its images.",
        error_messages={"required": "Choose a file.", "empty": "The file is empty."},
    )
    format = forms.ChoiceField(
        choices=lambda: [("", "Find out from the first rows"), *choices(IMPORTERS)],
        required=False,
        label="Format",
    )
    columns = forms.CharField(
        required=False,
        max_length=MAX_COLUMNS_TEXT,
        label="Columns",
        widget=forms.Textarea(
            attrs={
                "rows": 4,
                "spellcheck": "false",
                "placeholder": "prompt = question\nresponse_a = answer_1\nlabel = ann, bo",
            }
        ),
        help_text="Only where the names do not say it: one “field = column” a line.",
    )
    labels = forms.ChoiceField(
        choices=list(SCHEME_LABELS.items()),
        required=False,
        label="How labels are written",
    )
    rater = forms.CharField(
        required=False,
        max_length=MAX_NAME,
        label="Rater of unsigned labels",
        help_text=f"Labels that name nobody are recorded under this name. Empty: {DEFAULT_RATER}.",
    )
    judges = forms.CharField(
        required=False,
        max_length=MAX_COLUMNS_TEXT,
        label="Raters that are AI judges",
        widget=forms.TextInput(attrs={"spellcheck": "false"}),
        help_text="Their names, or the columns of their labels, with commas between; * is all. "
        "What they say is measured and counts only where somebody names them.",
    )
    pairs = forms.ChoiceField(choices=PAIRS, required=False, label="Which answers are compared")
    kind = forms.ChoiceField(
        choices=lambda: [(AUTO, "What the labels are of, else the project’s"), *choices(KINDS)],
        required=False,
        label="Kind of task",
    )
    people = forms.ChoiceField(
        choices=PEOPLE,
        required=False,
        label="After the import",
        help_text="Labels alone are enough to compute agreement and to train on.",
    )
    values = forms.CharField(
        required=False,
        max_length=MAX_COLUMNS_TEXT,
        label="What the answers count",
        widget=forms.TextInput(attrs={"spellcheck": "false", "placeholder": "bad = 0, good = 1"}),
        help_text="Only for ratings in words. Yes, no, true, false and numbers are known.",
    )
    stand_ins = forms.BooleanField(
        required=False,
        label="Keep names in place of images that are missing",
        help_text="So that rankings of them can be kept. Otherwise such rows are bad.",
    )
    strict = forms.BooleanField(
        required=False,
        label="Refuse the whole file for one bad row",
        help_text="Otherwise good rows are kept and bad ones are listed.",
    )
    simulated = forms.BooleanField(
        required=False,
        label="The raters in this file are simulated",
        help_text="New raters are marked as simulated wherever they show.",
    )

    def __init__(self, *args: Any, again: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["file"].required = not again

    def clean_columns(self) -> dict[str, list[str]]:
        mapping: dict[str, list[str]] = {}
        for number, line in enumerate(self.cleaned_data["columns"].splitlines(), start=1):
            if not line.strip():
                continue
            name, found, column = (part.strip() for part in line.partition("="))
            if not found or not column:
                raise forms.ValidationError(f"Line {number} is not “field = column”.")
            if name not in FIELDS:
                raise forms.ValidationError(
                    f"Line {number}: there is no field “{name}”. Known: {', '.join(FIELDS)}."
                )
            if name in mapping and name not in SEVERAL:
                raise forms.ValidationError(f"Line {number}: “{name}” is there twice.")
            columns = column.split(",") if name in SEVERAL else [column]
            mapping.setdefault(name, []).extend(one.strip() for one in columns if one.strip())
        return mapping

    def clean_judges(self) -> list[str]:
        return [one.strip() for one in self.cleaned_data["judges"].split(",") if one.strip()]

    def clean_values(self) -> dict[str, int]:
        numbers: dict[str, int] = {}
        for part in self.cleaned_data["values"].split(","):
            if not part.strip():
                continue
            word, found, number = (piece.strip() for piece in part.rpartition("="))
            try:
                numbers[word] = int(number)
            except ValueError:
                found = ""
            if not found or not word:
                raise forms.ValidationError(f"“{part.strip()}” is not “word = number”.")
        return numbers

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.errors:
            try:
                Options.model_validate(self.options())
            except ValidationError as error:
                for one in error.errors():
                    self.add_error(None, str(one["msg"]).removeprefix("Value error, "))
        return data

    def options(self) -> dict[str, Any]:
        data = self.cleaned_data
        named = {name: data.get(name) for name in OPTIONS}
        return {
            "mapping": data.get("columns") or {},
            **{name: value for name, value in named.items() if value},
        }

    def config(self) -> dict[str, Any]:
        """What ``services.imports`` is asked for. Where the file lies is not the form's to say."""
        data = self.cleaned_data
        return {
            "format": data["format"],
            "strict": data["strict"],
            "simulated": data["simulated"],
            "options": self.options(),
        }


def initial_of(config: dict[str, Any]) -> dict[str, Any]:
    """The answers of an earlier run's form."""
    options = config.get("options") or {}
    lines = [
        f"{name} = {', '.join(columns)}" for name, columns in options.get("mapping", {}).items()
    ]
    return {
        "format": config.get("format", ""),
        "strict": config.get("strict", False),
        "simulated": config.get("simulated", False),
        "columns": "\n".join(lines),
        "labels": options.get("labels", "auto"),
        "pairs": options.get("pairs", "auto"),
        "kind": options.get("kind", AUTO),
        "people": options.get("people", "open"),
        "values": ", ".join(f"{word} = {n}" for word, n in options.get("values", {}).items()),
        "stand_ins": options.get("stand_ins", False),
        "rater": options.get("rater", ""),
        "judges": ", ".join(options.get("judges", [])),
    }
