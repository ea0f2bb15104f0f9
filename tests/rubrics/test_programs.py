"""Each program: where its criterion holds, where it does not, where it does not apply."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rubrics.programs import PROGRAMS, find_criterion
from rubrics.programs.evaluate import as_shares, evaluate, value
from rubrics.registry import UnknownMethod

ANY = "Tell me something."
ENGLISH = "Please explain to me how the tides of the ocean work and why they come twice a day."
TIDES = "The moon pulls the water of the ocean towards it, and so there are two bulges of water."
FRENCH = "La lune attire l'eau de la mer, et c'est pourquoi il y a deux marées chaque jour."
PYTHON = "```python\ndef f(x):\n    return x + 1\n```"
BROKEN = "```python\ndef f(x)\n    return x + 1\n```"
FIFTY = " ".join(["word"] * 50)
LETTER = "In your response, the letter q should appear at least 3 times."

# key -> (prompt, response, what it says). None: does not apply.
CASES: dict[str, list[tuple[str, str, Any]]] = {
    "characters": [(ANY, " abc ", 3), (ANY, "", 0)],
    "words": [(ANY, "It isn't so, is it?", 5), (ANY, "你好世界", 4), (ANY, "", 0)],
    "sentences": [
        (ANY, "Dr. Who saw e.g. one. Then two! Really?", 3),
        (ANY, "1. One\n2. Two", 2),
        (ANY, "", 0),
        (ANY, "Pi is 3.14. So is this.", 2),
        (ANY, "So am I. You too", 2),
    ],
    "answered": [(ANY, "Yes", True), (ANY, " \n… ", False), (ANY, "", False)],
    "asked-words": [
        ("Say it in at most 50 words.", FIFTY, True),
        ("Say it in at most 50 words.", f"{FIFTY} more", False),
        ("Say it in fewer than 50 words.", FIFTY, False),
        ("Write a 100-word summary.", FIFTY, False),
        ("Summarize this in 45 words.", FIFTY, True),
        ("Answer in exactly 49 words.", FIFTY, False),
        ("Use between 40 and 60 words.", FIFTY, True),
        ("Use at least fifty words", FIFTY, True),
        ("Answer in one word.", "Yes indeed", False),
        ("What do these two words mean?", FIFTY, None),
        (ANY, FIFTY, None),
    ],
    "asked-sentences": [
        ("Explain in three sentences.", "One. Two. Three.", True),
        ("Explain in three sentences.", "One. Two.", False),
        ("Explain in no more than 2 short sentences.", "One. Two.", True),
        ("Translate these three sentences.", "One.", None),
    ],
    "asked-paragraphs": [
        ("Write two paragraphs.", "One.\nStill one.\n\n\nTwo.", True),
        ("Write two paragraphs.", "One.", False),
        (ANY, "One.", None),
    ],
    "asked-bullets": [
        ("Give me exactly 3 bullet points.", "- a\n- b\n- c", True),
        ("Give me exactly 3 bullet points.", "- a\n- b", False),
        (ANY, "- a", None),
    ],
    "json": [
        (ANY, ' {"a": [1, 2]} ', True),
        (ANY, "```json\n[1]\n```", True),
        (ANY, "{a: 1}", False),
        (ANY, 'Here: {"a": 1}', False),
        (ANY, "[" * 5000 + "]" * 5000, None),
        (ANY, "", None),
    ],
    "list": [(ANY, "- a\n- b", True), (ANY, "a - b", False), (ANY, " ", None)],
    "numbered-list": [(ANY, "1. a\n2) b", True), (ANY, "- a\n- b", False), (ANY, "", None)],
    "table": [
        (ANY, "| a | b |\n|---|:-:|\n| 1 | 2 |", True),
        (ANY, "a | b\nc | d", False),
        (ANY, "", None),
    ],
    "headings": [(ANY, "## Moon\nText", True), (ANY, "#moon", False), (ANY, "", None)],
    "bold": [(ANY, "so **very** good", True), (ANY, "2 ** 3 ** 4", False), (ANY, "", None)],
    "code-block": [(ANY, PYTHON, True), (ANY, "x = 1", False), (ANY, "", None)],
    "one-paragraph": [(ANY, "One.\nOn.", True), (ANY, "One.\n\nTwo.", False), (ANY, "", None)],
    "no-markdown": [(ANY, "Just text.", True), (ANY, "See [a](b.c).", False), (ANY, "", None)],
    "complete-ending": [
        (ANY, "So it is.", True),
        (ANY, "“So it is!”", True),
        (ANY, f"Here:\n{PYTHON}", True),
        (ANY, "- one\n- two", True),
        (ANY, "So it is the", False),
        (ANY, "", None),
    ],
    "truncated": [
        (ANY, "So it is the", True),
        (ANY, "```\nx = 1", True),
        (ANY, "One, two,", True),
        (ANY, "So it is.", False),
        (ANY, "", None),
    ],
    "python-parses": [
        (ANY, PYTHON, 1.0),
        (ANY, BROKEN, 0.0),
        (ANY, f"{PYTHON}\n{BROKEN}", 0.5),
        (ANY, "```py\n>>> 1 + 1\n2\n```", 1.0),
        (ANY, '```python\nre.match("\\d", x)\n```', 1.0),
        (ANY, "```\nx\n```", None),
    ],
    "json-parses": [
        (ANY, '```json\n{"a": 1}\n```', 1.0),
        (ANY, "```json\n{'a': 1}\n```", 0.0),
        (ANY, "{}", None),
    ],
    "xml-parses": [
        (ANY, "```xml\n<a><b/></a>\n```", 1.0),
        (ANY, "```xml\n<a><b></a>\n```", 0.0),
        (ANY, '```xml\n<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>\n```', None),
        (ANY, "<a/>", None),
    ],
    "brackets": [
        (ANY, "f(x[1])", True),
        (ANY, "a) one :)\nb) two", True),
        (ANY, "f(x[1)]", False),
        (ANY, "none", None),
    ],
    "asked-code": [
        ("Write a Python function that adds.", PYTHON, True),
        ("Write a Python function that adds.", "Use the plus sign.", False),
        (ANY, PYTHON, None),
    ],
    "same-language": [
        (ENGLISH, TIDES, True),
        (ENGLISH, FRENCH, False),
        (ENGLISH, "ok", None),
        (f"{ENGLISH} Answer in French.", FRENCH, None),
    ],
    "asked-language": [
        (f"{ENGLISH} Answer in French.", FRENCH, True),
        (f"{ENGLISH} Your entire response should be in French.", TIDES, False),
        ("How do they greet people in French?", TIDES, None),
    ],
    "refusal": [
        (ANY, "I’m sorry, but I can’t help with that.", True),
        (ANY, "Sure, I can help.", False),
        (ANY, "…", None),
    ],
    "hedging": [
        (ANY, "Perhaps. It might.", 1.0),
        (ANY, "It is. It was.", 0.0),
        (ANY, "", None),
    ],
    "apology": [(ANY, "I apologize for it.", True), (ANY, "A sorry end.", False), (ANY, "", None)],
    "flattery": [
        (ANY, "What a great question! Tides …", True),
        (ANY, "Tides come twice.", False),
        (ANY, "", None),
    ],
    "ai-mention": [
        (ANY, "As an AI, I have no body.", True),
        (ANY, "AI is a field.", False),
        (ANY, "", None),
    ],
    "asks-back": [
        (ANY, "Which one do you mean?", True),
        (ANY, "Why? Because.", False),
        (ANY, "", None),
    ],
    "exclamations": [(ANY, "Wow! Great!", 1.0), (ANY, "Well.", 0.0), (ANY, "", None)],
    "emoji": [(ANY, "Hi 😀", True), (ANY, "Hi :)", False), (ANY, "", None)],
    "shouting": [
        (ANY, "STOP THAT NOISE", 1.0),
        (ANY, "Stop that noise", 0.0),
        ("Answer in capital letters.", "STOP THAT", None),
    ],
    "placeholder": [
        (ANY, "Dear [Recipient's name],", True),
        (ANY, "Dear Ann,", False),
        ("Write a template.", "Dear [name],", None),
    ],
    "profanity": [(ANY, "Oh shit.", True), (ANY, "Hello class.", False), (ANY, "", None)],
    "restates": [
        (ENGLISH, "How the tides of the ocean work and why: the moon.", True),
        (ENGLISH, TIDES, False),
        ("Why?", TIDES, None),
    ],
    "repeated-phrases": [
        (ANY, "to be or not " * 3, 5 / 9),
        (ANY, "all of these words differ", 0.0),
        (ANY, "too short", None),
    ],
    "repeated-lines": [
        (ANY, "This line is long enough.\nThis line is long enough.", 0.5),
        (ANY, "This line is long enough.", 0.0),
        (ANY, "short\nshort", None),
    ],
    "copied": [
        ("One two three four five.", "One two three four five.", 1.0),
        ("One two three four five.", "Six seven eight nine ten.", 0.0),
        ("One two.", "Six seven eight nine ten.", None),
    ],
    "on-topic": [
        ("Why do tides rise?", "Tides rise daily.", 1.0),
        ("Why do tides rise?", "Bread does.", 0.5 - 0.5),
        ("Why is it so?", "It is.", None),
    ],
    "novelty": [
        ("Tides rise.", "Moon pulls.", 1.0),
        ("Tides rise.", "Tides rise", 0.0),
        (ANY, "it is", None),
    ],
    "readable": [
        (ANY, "The cat sat on the mat. It was fat.", 1.0),
        (ANY, "Institutional heterogeneity.", None),
        (ANY, "Institutional heterogeneity necessitates multidimensional characterization now.", 0.0),
    ],
    "varied": [
        (ANY, "one two three four five six", 1.0),
        (ANY, "one one one one one one", 1 / 6),
        (ANY, "one", None),
    ],
    "sources": [
        (ANY, "See https://example.org/a.", True),
        (ANY, "So says (Miller, 1956).", True),
        (ANY, "So they say.", False),
        (ANY, "", None),
    ],
    "figures": [(ANY, "In 1999 it rose", 0.25), (ANY, "It rose", 0.0), (ANY, "", None)],
    "units": [
        (ANY, "It weighs 5 kg.", True),
        (ANY, "It has 5 kgs in it.", False),
        (ANY, "It has 5 sides.", False),
        (ANY, "", None),
    ],
    "asked-keywords": [
        ("Include the keywords 'moon' and 'tide'.", "The Moon makes the tide.", 1.0),
        ("Include the keywords [moon, tide] in it.", "The moon.", 0.5),
        ("Include the word moon.", "Nothing.", 0.0),
        ("Do not include the word moon.", "Nothing.", None),
        (ANY, "moon", None),
    ],
    "asked-without": [
        ('Do not use the words "moon" or "sun".', "The stars shine.", True),
        ('Do not use the words "moon" or "sun".', "The Sun shines.", False),
        ("Avoid the word sun.", "Sunny.", True),
        ('Use the word "sun".', "Dark.", None),
    ],
    "asked-no-commas": [
        ("Answer without using any commas.", "One two.", True),
        ("Answer without using any commas.", "One, two.", False),
        ("What are commas for?", "One, two.", None),
    ],
    "asked-lower-case": [
        ("Answer in all lowercase letters.", "it is so.", True),
        ("Answer in all lowercase letters.", "It is so.", False),
        ("How do I make a string all lower case in Python?", "Use lower().", None),
    ],
    "asked-upper-case": [
        ("Your answer should be in all capital letters.", "SO IT IS.", True),
        ("Your answer should be in all capital letters.", "So it is.", False),
        (ANY, "SO", None),
    ],
    "asked-letter": [
        (LETTER, "Quite quick queen.", True),
        (LETTER, "Quick.", False),
        (ANY, "q", None),
    ],
    "asked-word-count": [
        ('The word "sun" should appear at most 2 times.', "Sun sun.", True),
        ('The word "sun" should appear at most 2 times.', "Sun sun sun.", False),
        (ANY, "sun", None),
    ],
    "asked-postscript": [
        ("Add a postscript starting with P.S.", "Bye.\n\nP.S. Write soon.", True),
        ("Add a postscript starting with P.S.", "Bye.", False),
        (ANY, "P.S. Bye", None),
    ],
    "asked-title": [
        ("Add a title in double angular brackets.", "<<Tides>>\nThe moon …", True),
        ("Add a title in double angular brackets.", "Tides\nThe moon …", False),
        (ANY, "<<Tides>>", None),
    ],
    "asked-quotes": [
        ("Wrap your entire response in double quotation marks.", '"So it is."', True),
        ("Wrap your entire response in double quotation marks.", "So it is.", False),
        (ANY, '"So"', None),
    ],
    "asked-ending": [
        ('Finish your response with the phrase "Is there more?"', "Yes. Is there more?", True),
        ('Finish your response with the phrase "Is there more?"', "Is there more? Yes.", False),
        (ANY, "Is there more?", None),
    ],
    "asked-json": [
        ("Respond in JSON format.", '{"a": 1}', True),
        ("Respond in JSON format.", "a is 1", False),
        ("What is JSON format?", "A format.", None),
    ],
}  # fmt: skip
ALWAYS = ("characters", "words", "sentences", "answered")  # apply to the empty text too
ROWS = [
    pytest.param(key, *case, id=f"{key}-{number}")
    for key, cases in CASES.items()
    for number, case in enumerate(cases)
]


def asked(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


@pytest.mark.parametrize(("key", "prompt", "text", "expected"), ROWS)
def test_program_says(key: str, prompt: str, text: str, expected: Any) -> None:
    found = value(key, asked(prompt), text)
    if expected is None or isinstance(expected, bool):
        assert found is expected
    else:
        assert found == pytest.approx(expected)
        assert not isinstance(found, bool)


@pytest.mark.parametrize("key", PROGRAMS)
def test_cases_hold_yes_no_and_does_not_apply(key: str) -> None:
    said = {
        None if expected is None else float(expected) > (0.4 if expected is not True else 0)
        for _, _, expected in CASES[key]
    }
    if key in ("figures", "varied"):
        said.update({True, False})  # shares of their own
    assert {True, False} <= said
    assert (None in said) == (key not in ALWAYS)
    gives = PROGRAMS[key].gives
    assert (PROGRAMS[key].half > 0) == (gives == "measure")
    of_kind = {type(expected) for _, _, expected in CASES[key]} - {type(None)}
    assert of_kind == ({bool} if gives == "yes-no" else of_kind - {bool})


def test_constraints_are_read_from_the_system_message_too() -> None:
    messages = [{"role": "system", "content": "Answer in one sentence."}, *asked("Why?")]
    assert value("asked-sentences", messages, "So. It is.") is False
    assert value("asked-sentences", messages, "So it is.") is True


def test_only_the_last_user_message_is_asked() -> None:
    messages = [
        *asked("Answer in one sentence."),
        {"role": "assistant", "content": "Yes."},
        *asked("Why?"),
    ]
    assert value("asked-sentences", messages, "So. It is.") is None


def test_evaluate_gives_a_row_per_response_and_nan_where_none_applies() -> None:
    keys = ["words", "asked-sentences", "refusal"]
    prompts = [asked("In one sentence?"), asked("In one sentence?"), asked("So?")]
    values = evaluate(prompts, ["One. Two.", "I can't help.", ""], keys)
    np.testing.assert_equal(values, [[2, 0, 0], [3, 1, 1], [0, np.nan, np.nan]])
    shares = as_shares(values, keys)
    assert shares[1, 0] == pytest.approx(3 / 153)
    np.testing.assert_equal(shares[:, 1:], values[:, 1:])


def test_evaluate_says_the_same_as_each_program_alone() -> None:
    rows = [(prompt, text) for cases in CASES.values() for prompt, text, _ in cases]
    keys = list(PROGRAMS)
    values = evaluate([asked(prompt) for prompt, _ in rows], [text for _, text in rows], keys)
    for row, (prompt, text) in list(zip(values, rows, strict=True))[::7]:
        alone = [value(key, asked(prompt), text) for key in keys]
        np.testing.assert_equal(row, [np.nan if one is None else float(one) for one in alone])


def test_evaluate_refuses_unknown_keys_and_lists_of_two_lengths() -> None:
    with pytest.raises(UnknownMethod, match="no-such"):
        evaluate([], [], ["no-such"])
    with pytest.raises(ValueError, match="longer"):
        evaluate([asked("a")], ["a", "b"], ["words"])


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("refusal", ("refusal", True)),
        ("-refusal", ("refusal", False)),
        ("not: Refuses", ("refusal", False)),
        (" refuses ", ("refusal", True)),
        ("Is polite", None),
        ("-", None),
    ],
)
def test_find_criterion_knows_keys_and_labels(line: str, found: Any) -> None:
    assert find_criterion(line) == found


def test_labels_are_told_apart() -> None:
    names = [name.casefold() for key, row in PROGRAMS.items() for name in {key, row.label.lower()}]
    assert len(set(names)) == len(names)
    assert len(PROGRAMS) >= 40
