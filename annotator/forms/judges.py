"""Forms about judges: where they are asked, what they are, how far one run may go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django import forms
from django.urls import reverse
from pydantic import BaseModel, ValidationError

from annotator.errors import AppError
from annotator.forms.projects import PercentField, form_field
from annotator.models import Endpoint, Project, RubricVersion
from annotator.services import rubric_judges
from annotator.services.rubric_judges import Taken
from rubrics.judging import ASKING, CONDITIONED, JUDGES
from rubrics.judging.rubric_options import RubricLine
from rubrics.llm.budget import Budget
from rubrics.programs import PROGRAMS
from rubrics.registry import Method

PREFIX: Final = "option_"
MAX_MODEL: Final = 200
# What most people set; the rest waits under "More".
ROWS: Final = {"models": 2}
FIRST: Final = frozenset(
    {"models", "mode", "criteria", "total", "principle", "programs", "model", "number"}
)
CRITERIA: Final = "criteria"  # the option that a rubric fills in


class EndpointForm(forms.Form):
    """An endpoint. Its key is only ever written: an empty field leaves the stored one."""

    name = forms.CharField(max_length=60, help_text="How judges and pages call it.")
    base_url = forms.URLField(
        max_length=300,
        assume_scheme="https",
        label="Address",
        help_text="Where the API begins, such as https://llm.example.org/v1.",
        widget=forms.URLInput(attrs={"spellcheck": "false"}),
    )
    key = forms.CharField(
        required=False,
        max_length=500,
        label="Key",
        widget=forms.PasswordInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    remove_key = forms.BooleanField(required=False, label="Remove the stored key")
    concurrency = forms.IntegerField(
        min_value=1,
        max_value=512,
        initial=16,
        label="Calls at once",
        help_text="Of all runs together.",
    )
    per_minute = forms.IntegerField(
        min_value=0,
        max_value=1_000_000,
        initial=0,
        label="Calls a minute",
        help_text="0 is no limit.",
    )
    timeout_seconds = forms.IntegerField(
        min_value=1, max_value=600, initial=60, label="Longest wait (seconds)"
    )
    has_schema = forms.BooleanField(
        required=False, initial=True, label="It can hold a reply to a JSON schema"
    )
    has_logprobs = forms.BooleanField(required=False, label="It gives token probabilities")
    has_images = forms.BooleanField(required=False, label="It reads images")
    prices = forms.CharField(
        required=False,
        max_length=10_000,
        label="Prices",
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false", "class": "mono"}),
        help_text="One model per line: its name, price per million tokens in, price per million "
        "tokens out, separated by spaces. * is every other model.",
    )

    def __init__(self, *args: Any, endpoint: Endpoint | None = None, **kwargs: Any) -> None:
        self.endpoint = endpoint
        if endpoint is not None:
            stored = {
                name: getattr(endpoint, name) for name in self.base_fields if name in STORED
            } | {"prices": prices_as_text(endpoint.prices)}
            kwargs["initial"] = stored | (kwargs.get("initial") or {})
        super().__init__(*args, **kwargs)
        self.fields["key"].help_text = (
            f"Set on {endpoint.secret_set_at:%Y-%m-%d}; empty leaves it as it is. It is kept "
            "encrypted and never shown."
            if endpoint is not None and endpoint.secret_set_at
            else "Kept encrypted and never shown again. Empty where none is needed."
        )
        if endpoint is None or not endpoint.secret_set_at:
            del self.fields["remove_key"]

    def clean_prices(self) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for line in self.cleaned_data["prices"].splitlines():
            parts = line.split()
            if not parts:
                continue
            try:
                name, low, high = parts
                found[name] = [float(low), float(high)]
            except ValueError:
                raise forms.ValidationError(
                    f"“{line[:80]}” is not a name and two prices."
                ) from None
        return found

    def values(self) -> dict[str, Any]:
        """What services.endpoints is asked for: without the key where none was typed."""
        data = dict(self.cleaned_data)
        data["secret"] = data.pop("key")
        if data.pop("remove_key", False):
            data["removes_secret"] = True
        return data


STORED: Final = (
    "name",
    "base_url",
    "concurrency",
    "per_minute",
    "timeout_seconds",
    "has_schema",
    "has_logprobs",
    "has_images",
)


def prices_as_text(prices: Mapping[str, list[float]]) -> str:
    return "\n".join(f"{name} {low:g} {high:g}" for name, (low, high) in prices.items())


class RubricField(forms.ModelChoiceField):
    """An approved version of a rubric; changing it asks for the form's options anew."""

    def __init__(self, project: Project, **kwargs: Any) -> None:
        keys = [one.pk for one in rubric_judges.approved(project)]
        rows = RubricVersion.objects.filter(pk__in=keys).select_related("rubric", "verifier")
        widget = forms.Select(
            attrs={
                "hx-get": reverse("judge_new", args=[project.slug]),
                "hx-target": "#options",
                "hx-swap": "outerHTML",
                "hx-include": "#judge input:not([name=csrfmiddlewaretoken]), #judge select, "
                "#judge [name=option_models]",
            }
        )
        super().__init__(
            rows.order_by("rubric__name", "-number"),
            required=False,
            label="Rubric",
            empty_label="None: the criteria below",
            help_text="An approved version: its criteria are copied, since a judge never changes.",
            widget=widget,
            **kwargs,
        )


class JudgeForm(forms.Form):
    """A judge of one kind: its name and the options of that kind. ``shown`` as in TrainForm.

    Where a version of a rubric is chosen its criteria stand in the place of the option.
    """

    name = forms.CharField(
        max_length=80,
        help_text="A name that exists already gets a new version; versions never change.",
    )

    def __init__(
        self, data: Any = None, *, project: Project, initial: Mapping[str, Any] | None = None
    ) -> None:
        chosen = data if data is not None else initial or {}
        key = chosen.get("kind", "")
        self.kind = key if key in JUDGES else next(iter(JUDGES))
        super().__init__(data, initial=dict(initial or {}) | {"kind": self.kind})
        was_shown = data is None or data.get("shown", "") == self.kind
        self.version: RubricVersion | None = None
        self.taken: Taken | None = None
        self.rubric_problem = ""
        if self.kind in CONDITIONED:
            self.fields["rubric"] = RubricField(project)
            self._choose_rubric(project, chosen.get("rubric", ""))
        if self.kind in ASKING:
            rows = project.endpoints.filter(archived_at=None).order_by("name")
            is_free = self.kind == "rubric"  # programs may check all of it
            self.fields["endpoint"] = forms.ModelChoiceField(
                rows,
                empty_label="None: programs check every criterion" if is_free else None,
                required=was_shown and not is_free,
                initial=rows.first() if is_free else None,
                label="Endpoint",
            )
        self.options: type[BaseModel] = JUDGES[self.kind].load_options()
        for name, info in self.options.model_fields.items():
            if name == CRITERIA and self.version is not None:
                continue
            field = form_field(name, info)
            field.required = False
            given = (initial or {}).get(name, info.get_default(call_default_factory=True))
            field.initial = lines_of(given) if name == CRITERIA else given
            field.disabled = not was_shown
            if isinstance(field.widget, forms.Textarea):
                field.widget.attrs["rows"] = ROWS.get(name, 4)
            self.fields[PREFIX + name] = field

    def _choose_rubric(self, project: Project, asked: Any) -> None:
        """The version that conditions it, and what it takes over, or why it cannot."""
        if not (str(asked).isascii() and str(asked).isdecimal() and len(str(asked)) < 19):
            return
        rows = RubricVersion.objects.select_related("rubric")
        found = rows.filter(rubric__project=project, pk=int(asked)).first()
        if found is None:
            return
        try:
            self.taken = rubric_judges.take(self.kind, found)
        except AppError as error:
            self.rubric_problem = f"{error.message} {error.advice}".strip()
        if not found.is_draft:
            self.version = found

    @property
    def rubric_field(self) -> forms.BoundField | None:
        """Where a version is chosen; None for kinds that read no rubric."""
        return self["rubric"] if "rubric" in self.fields else None

    @property
    def taken_lines(self) -> list[str]:
        """The criteria that are copied, as they could be typed."""
        return list(lines_of(self.taken.criteria)) if self.taken else []

    @property
    def kind_choices(self) -> list[tuple[str, Method, bool]]:
        """(key, method, whether chosen)."""
        return [(key, row, key == self.kind) for key, row in JUDGES.items()]

    @property
    def programs(self) -> list[tuple[str, Method]]:
        """(key, program) of what a judge of kind program can be made of; [] for other kinds."""
        return list(PROGRAMS.items()) if self.kind == "program" else []

    @property
    def is_asking(self) -> bool:
        return self.kind in ASKING

    @property
    def first_fields(self) -> list[forms.BoundField]:
        return [self[PREFIX + name] for name in self._shown if name in FIRST]

    @property
    def more_fields(self) -> list[forms.BoundField]:
        return [self[PREFIX + name] for name in self._shown if name not in FIRST]

    @property
    def _shown(self) -> list[str]:
        return [name for name in self.options.model_fields if PREFIX + name in self.fields]

    @property
    def more_is_open(self) -> bool:
        return any(field.errors for field in self.more_fields)

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        try:
            self.options.model_validate(self._given())
        except ValidationError as error:
            for one in error.errors():
                place = PREFIX + str(one["loc"][0]) if one["loc"] else ""
                if place not in self.errors:
                    message = one["msg"].removeprefix("Value error, ")
                    self.add_error(place if place in self.fields else None, message)
        return data

    def _given(self) -> dict[str, Any]:
        """What was filled in; an empty field is its default."""
        found = {name: self.cleaned_data.get(PREFIX + name) for name in self.options.model_fields}
        return {name: value for name, value in found.items() if value not in (None, "", [])}

    def values(self) -> dict[str, Any]:
        """What services.judges.add is asked for."""
        return {
            "name": self.cleaned_data["name"],
            "kind": self.kind,
            "endpoint": self.cleaned_data.get("endpoint"),
            "options": self._given(),
            "rubric_version": self.cleaned_data.get("rubric"),
        }


def lines_of(criteria: Any) -> Any:
    """Criteria as lines to be edited, whether kept as text or as rows."""
    if not isinstance(criteria, list):
        return criteria
    return [
        str(RubricLine.model_validate(one)) if isinstance(one, dict) else str(one)
        for one in criteria
    ]


class JudgeRunForm(forms.Form):
    """What one run judges and what it may use; empty is no limit."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, auto_id="run-%s", **kwargs)  # the page has two forms with a limit

    tasks = forms.ChoiceField(
        choices=[
            ("unlabeled", "Tasks that nobody has judged"),
            ("all", "Every task"),
            ("labeled", "Tasks that people have judged, to measure it"),
        ],
        initial="labeled",
        label="Tasks",
    )
    only = forms.CharField(
        max_length=300,
        required=False,
        label="Only those with",
        widget=forms.TextInput(attrs={"type": "search", "placeholder": "split=test, tag=code"}),
    )
    limit = forms.IntegerField(
        min_value=1, max_value=100_000_000, required=False, label="At most tasks"
    )
    calls = forms.IntegerField(min_value=1, max_value=10**9, required=False, label="Calls")
    tokens = forms.IntegerField(min_value=1, max_value=10**12, required=False, label="Tokens")
    money = forms.FloatField(min_value=0.000001, max_value=10**7, required=False, label="Money")

    def values(self) -> dict[str, Any]:
        """What services.judging.start is asked for."""
        data = self.cleaned_data
        return {
            "tasks": ",".join(filter(None, (data["tasks"], data["only"].strip()))),
            "limit": data["limit"],
            "budget": Budget(calls=data["calls"], tokens=data["tokens"], money=data["money"]),
        }


class AcceptForm(forms.Form):
    """Up to which share of wrong labels a judge's votes are accepted without a person."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, auto_id="accept-%s", **kwargs)

    limit = PercentField(label="Accept while the upper bound of its error stays under")
    audit = PercentField(label="Share of accepted pairs that people judge all the same")

    def clean_limit(self) -> float:
        limit = self.cleaned_data["limit"]
        if not 0 < limit < 0.5:
            raise forms.ValidationError("A share above 0 and below 50 %.")
        return limit

    def values(self) -> dict[str, Any]:
        """What services.trust.turn_on is asked for."""
        return {"limit": self.cleaned_data["limit"], "audit_share": self.cleaned_data["audit"]}
