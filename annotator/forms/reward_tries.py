"""A prompt and answers that somebody pastes to see how a reward model orders them."""

from __future__ import annotations

from typing import Any, Final

from django import forms

from annotator.services import reward_asks as service
from annotator.services.reward_asks import MAX_TEXT, Asked, Item

NAMES: Final = "ABCDEFGH"
SHOWN: Final = 2  # answers that are asked for at first


class TryForm(forms.Form):
    """A prompt and two to eight answers. Answers that are left empty are not there."""

    prompt = forms.CharField(
        max_length=MAX_TEXT, strip=False, widget=forms.Textarea(attrs={"rows": 2, "dir": "auto"})
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in NAMES:
            self.fields[name.lower()] = forms.CharField(
                label=f"Answer {name}", max_length=MAX_TEXT, strip=False, required=name in "AB",
                widget=forms.Textarea(attrs={"rows": 5, "dir": "auto"}),
            )  # fmt: skip

    @property
    def first(self) -> list[forms.BoundField]:
        return [self[name.lower()] for name in NAMES[:SHOWN]]

    @property
    def more(self) -> list[forms.BoundField]:
        return [self[name.lower()] for name in NAMES[SHOWN:]]

    @property
    def has_more(self) -> bool:
        """Whether one of the further answers is filled in."""
        return any(field.value() for field in self.more)

    def asked(self) -> Asked:
        """Raises annotator.errors.Invalid."""
        given = [self.cleaned_data.get(name.lower(), "") for name in NAMES]
        prompt = service.conversation(self.cleaned_data["prompt"])
        return service.make([Item(prompt, text) for text in given if text.strip()])
