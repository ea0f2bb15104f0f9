"""Which language a response is in, by py3langid (a naive Bayes model of byte n-grams)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from rubrics.programs.case import Case, Prompt, Value

READ: Final = 500  # characters; more do not make it surer
FEWEST: Final = 20  # letters; below that, anything looks like anything
SUREST: Final = 0.8
# What a reader takes for one language.
SAME: Final = {"yue": "zh", "wuu": "zh", "pcm": "en", "nb": "no", "nn": "no", "ms": "id"}
SAME.update({"bs": "hr", "sr": "hr", "srl": "hr"})
NAMES: Final = {
    "english": "en", "french": "fr", "german": "de", "spanish": "es", "italian": "it",
    "portuguese": "pt", "dutch": "nl", "russian": "ru", "chinese": "zh", "mandarin": "zh",
    "japanese": "ja", "korean": "ko", "arabic": "ar", "hindi": "hi", "turkish": "tr",
    "polish": "pl", "swedish": "sv", "danish": "da", "norwegian": "no", "finnish": "fi",
    "greek": "el", "hebrew": "he", "thai": "th", "vietnamese": "vi", "indonesian": "id",
    "czech": "cs", "romanian": "ro", "hungarian": "hu", "ukrainian": "uk", "persian": "fa",
    "farsi": "fa", "bengali": "bn", "tamil": "ta", "telugu": "te", "urdu": "ur",
    "swahili": "sw", "bulgarian": "bg", "croatian": "hr", "serbian": "hr", "marathi": "mr",
    "gujarati": "gu", "punjabi": "pa", "kannada": "kn", "malayalam": "ml", "latin": "la",
}  # fmt: skip
INTO: Final = re.compile(rf"\b(?:in|into|to)(?: the)? ({'|'.join(NAMES)})\b(?! class)")
VERBS: Final = re.compile(r"\b(?:respond|reply|answer|write|response|translat|say|entire|speak)")
BEFORE: Final = 80  # characters in which the verb stands


@lru_cache(1)
def _model() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def language_of(text: str) -> str | None:
    """ISO 639 code of the language, None where the text is too short or the model unsure."""
    head = text[:READ]
    if sum(map(str.isalpha, head)) < (FEWEST if head.isascii() else FEWEST // 4):
        return None
    code, share = _model().classify(head)
    return SAME.get(code, code) if share >= SUREST else None


def of_prompt(prompt: Prompt) -> str | None:
    return language_of(prompt.last)


def asked(prompt: Prompt) -> str | None:
    """The language that the prompt asks for, the last one named."""
    found = None
    for match in INTO.finditer(prompt.request):
        if VERBS.search(prompt.request, max(0, match.start() - BEFORE), match.start()):
            found = NAMES[match[1]]
    return found


def same_language(case: Case) -> Value:
    """The prompt's language, unless it asks for another."""
    if case.prompt.read(asked):
        return None
    wanted = case.prompt.read(of_prompt)
    found = language_of("\n".join(case.prose)) if wanted else None
    return None if wanted is None or found is None else found == wanted


def asked_language(case: Case) -> Value:
    wanted = case.prompt.read(asked)
    found = language_of("\n".join(case.prose)) if wanted else None
    return None if wanted is None or found is None else found == wanted
