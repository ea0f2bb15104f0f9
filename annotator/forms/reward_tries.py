"""A prompt and answers that somebody pastes or uploads to see how a reward model orders them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django import forms

from annotator import pictures
from annotator.services import asked_pictures
from annotator.services import reward_asks as service
from annotator.services.reward_asks import MAX_TEXT, Answer, Asked, Item

NAMES: Final = "ABCDEFGH"
SHOWN: Final = 2  # answers that are asked for at first


class AnswersForm(forms.Form):
    """A prompt and two to eight answers. Answers that are left empty are not there."""

    prompt = forms.CharField(
        max_length=MAX_TEXT, strip=False, widget=forms.Textarea(attrs={"rows": 2, "dir": "auto"})
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in NAMES:
            self.fields[name.lower()] = self.answer(f"Answer {name}", required=name in "AB")

    def answer(self, label: str, *, required: bool) -> forms.Field:
        """The field of one answer."""
        raise NotImplementedError

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

    def given(self) -> Sequence[Answer]:
        """The answers that are there. Raises annotator.errors.Invalid."""
        raise NotImplementedError

    def asked(self) -> Asked:
        """Raises annotator.errors.Invalid."""
        prompt = service.conversation(self.cleaned_data["prompt"])
        return service.make([Item(prompt, answer) for answer in self.given()])


class TryForm(AnswersForm):
    """Answers that are texts."""

    def answer(self, label: str, *, required: bool) -> forms.Field:
        return forms.CharField(
            label=label, max_length=MAX_TEXT, strip=False, required=required,
            widget=forms.Textarea(attrs={"rows": 5, "dir": "auto"}),
        )  # fmt: skip

    def given(self) -> Sequence[Answer]:
        texts = [self.cleaned_data.get(name.lower(), "") for name in NAMES]
        return [text for text in texts if text.strip()]


class TryPicturesForm(AnswersForm):
    """Answers that are pictures. No browser sends a file twice: what was wrong is chosen again."""

    def answer(self, label: str, *, required: bool) -> forms.Field:
        kinds = ",".join(f"image/{kind.lower()}" for kind in pictures.KINDS)
        return forms.FileField(
            label=label, required=required, max_length=300,
            widget=forms.FileInput(attrs={"accept": kinds}),
        )  # fmt: skip

    def given(self) -> Sequence[Answer]:
        files = [self.cleaned_data.get(name.lower()) for name in NAMES]
        most = pictures.MAX_BYTES + 1
        return asked_pictures.encoded(file.read(most) for file in files if file)
