"""Verifiable criteria as code: free, instant, offline, the same tomorrow.

A program is a pure function of one response and its prompt (``case.Case``) that says whether, or
how far, a criterion holds; None where it does not apply. Nothing that it reads is executed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from rubrics.registry import Method

Gives = Literal["yes-no", "share", "measure"]


@dataclass(frozen=True)
class Program(Method):
    """A row of PROGRAMS.

    ``gives``: "yes-no" True or False, "share" a number in [0, 1], "measure" a number from 0 up,
    of which ``half`` counts as one half where a share is needed. ``label`` says what a yes means.
    """

    group: str = ""
    gives: Gives = "yes-no"
    half: float = 0


PROGRAMS: Final[dict[str, Program]] = {
    "characters": Program(
        path="rubrics.programs.length:characters",
        label="Characters",
        summary="how many characters it has",
        group="Length",
        gives="measure",
        half=800,
    ),
    "words": Program(
        path="rubrics.programs.length:words",
        label="Words",
        summary="how many words it has",
        group="Length",
        gives="measure",
        half=150,
    ),
    "sentences": Program(
        path="rubrics.programs.length:sentences",
        label="Sentences",
        summary="how many sentences it has, code aside",
        group="Length",
        gives="measure",
        half=8,
    ),
    "answered": Program(
        path="rubrics.programs.length:answered",
        label="Says something",
        summary="holds a letter or a digit",
        group="Length",
    ),
    "asked-words": Program(
        path="rubrics.programs.length:asked_words",
        label="Has as many words as asked",
        summary="“in at most 50 words”, “a 100-word summary”",
        group="Length",
    ),
    "asked-sentences": Program(
        path="rubrics.programs.length:asked_sentences",
        label="Has as many sentences as asked",
        summary="“in three sentences”",
        group="Length",
    ),
    "asked-paragraphs": Program(
        path="rubrics.programs.length:asked_paragraphs",
        label="Has as many paragraphs as asked",
        summary="“write two paragraphs”",
        group="Length",
    ),
    "asked-bullets": Program(
        path="rubrics.programs.length:asked_bullets",
        label="Has as many bullets as asked",
        summary="“in exactly 3 bullet points”",
        group="Length",
    ),
    "json": Program(
        path="rubrics.programs.layout:is_json",
        label="Is JSON",
        summary="is one JSON object or list and nothing else",
        group="Layout",
    ),
    "list": Program(
        path="rubrics.programs.layout:has_list",
        label="Has a list",
        summary="two bulleted or numbered lines or more",
        group="Layout",
    ),
    "numbered-list": Program(
        path="rubrics.programs.layout:numbered_list",
        label="Has a numbered list",
        summary="two numbered lines or more",
        group="Layout",
    ),
    "table": Program(
        path="rubrics.programs.layout:table",
        label="Has a table",
        summary="a Markdown table with its row of dashes",
        group="Layout",
    ),
    "headings": Program(
        path="rubrics.programs.layout:headings",
        label="Has headings",
        summary="a Markdown heading",
        group="Layout",
    ),
    "bold": Program(
        path="rubrics.programs.layout:bold",
        label="Has bold text",
        summary="Markdown bold on one line",
        group="Layout",
    ),
    "code-block": Program(
        path="rubrics.programs.layout:code_block",
        label="Has a block of code",
        summary="a fenced block",
        group="Layout",
    ),
    "one-paragraph": Program(
        path="rubrics.programs.layout:one_paragraph",
        label="Is one paragraph",
        summary="no empty line inside, no block of code",
        group="Layout",
    ),
    "no-markdown": Program(
        path="rubrics.programs.layout:no_markdown",
        label="Is plain text",
        summary="no heading, list, table, bold, code or link",
        group="Layout",
    ),
    "complete-ending": Program(
        path="rubrics.programs.layout:complete_ending",
        label="Ends with a complete sentence",
        summary="its last mark ends a sentence, a list or a block of code",
        group="Layout",
    ),
    "truncated": Program(
        path="rubrics.programs.layout:truncated",
        label="Breaks off",
        summary="an open block of code, a comma, a hanging word at its end",
        group="Layout",
    ),
    "python-parses": Program(
        path="rubrics.programs.code:python_code",
        label="Its Python parses",
        summary="the share of blocks marked as Python that parse",
        group="Code",
        gives="share",
    ),
    "json-parses": Program(
        path="rubrics.programs.code:json_code",
        label="Its JSON parses",
        summary="the share of blocks marked as JSON that parse",
        group="Code",
        gives="share",
    ),
    "xml-parses": Program(
        path="rubrics.programs.code:xml_code",
        label="Its XML is well-formed",
        summary="the share of blocks marked as XML that are well-formed",
        group="Code",
        gives="share",
    ),
    "brackets": Program(
        path="rubrics.programs.code:balanced",
        label="Its brackets are balanced",
        summary="in its code, or without code in its text",
        group="Code",
    ),
    "asked-code": Program(
        path="rubrics.programs.code:asked_code",
        label="Has the code that was asked for",
        summary="“write a function …” got code",
        group="Code",
    ),
    "same-language": Program(
        path="rubrics.programs.language:same_language",
        label="Is in the prompt’s language",
        summary="unless the prompt asks for another",
        group="Language",
    ),
    "asked-language": Program(
        path="rubrics.programs.language:asked_language",
        label="Is in the language asked for",
        summary="“answer in French”",
        group="Language",
    ),
    "refusal": Program(
        path="rubrics.programs.manner:refusal",
        label="Refuses",
        summary="declines in its first words",
        group="Manner",
    ),
    "hedging": Program(
        path="rubrics.programs.manner:hedging",
        label="Hedges",
        summary="perhaps, I think, it depends: per sentence",
        group="Manner",
        gives="share",
    ),
    "apology": Program(
        path="rubrics.programs.manner:apology",
        label="Apologizes",
        summary="says sorry in its first words",
        group="Manner",
    ),
    "flattery": Program(
        path="rubrics.programs.manner:flattery",
        label="Opens with praise",
        summary="praises the question or the asker before it answers",
        group="Manner",
    ),
    "ai-mention": Program(
        path="rubrics.programs.manner:machine",
        label="Speaks of itself as an AI",
        summary="as an AI, my training data, …",
        group="Manner",
    ),
    "asks-back": Program(
        path="rubrics.programs.manner:asks_back",
        label="Ends with a question",
        summary="its last mark is a question mark",
        group="Manner",
    ),
    "exclamations": Program(
        path="rubrics.programs.manner:exclamations",
        label="Exclaims",
        summary="exclamation marks per sentence",
        group="Manner",
        gives="share",
    ),
    "emoji": Program(
        path="rubrics.programs.manner:emoji",
        label="Has emoji",
        summary="one or more",
        group="Manner",
    ),
    "shouting": Program(
        path="rubrics.programs.manner:shouting",
        label="Shouts",
        summary="the share of longer words in capitals",
        group="Manner",
        gives="share",
    ),
    "placeholder": Program(
        path="rubrics.programs.manner:placeholder",
        label="Leaves blanks to fill in",
        summary="“[insert name]”, “{{date}}”, lorem ipsum",
        group="Manner",
    ),
    "profanity": Program(
        path="rubrics.programs.manner:profanity",
        label="Swears",
        summary="one of a few strong English words",
        group="Manner",
    ),
    "restates": Program(
        path="rubrics.programs.manner:restates",
        label="Begins with the prompt’s own words",
        summary="its first six words stand in the prompt",
        group="Manner",
    ),
    "repeated-phrases": Program(
        path="rubrics.programs.wording:repeated_phrases",
        label="Repeats phrases",
        summary="the share of runs of four words that were there before",
        group="Wording",
        gives="share",
    ),
    "repeated-lines": Program(
        path="rubrics.programs.wording:repeated_lines",
        label="Repeats lines",
        summary="the share of longer lines that were there before",
        group="Wording",
        gives="share",
    ),
    "copied": Program(
        path="rubrics.programs.wording:copied",
        label="Copies the prompt",
        summary="the share of runs of four words that the prompt has",
        group="Wording",
        gives="share",
    ),
    "on-topic": Program(
        path="rubrics.programs.wording:on_topic",
        label="Takes up the prompt’s words",
        summary="the share of the prompt’s rarer words that come up",
        group="Wording",
        gives="share",
    ),
    "novelty": Program(
        path="rubrics.programs.wording:novelty",
        label="Brings new words",
        summary="the share of its rarer words that the prompt lacks",
        group="Wording",
        gives="share",
    ),
    "readable": Program(
        path="rubrics.programs.wording:readable",
        label="Is easy to read",
        summary="Flesch reading ease as a share",
        group="Wording",
        gives="share",
    ),
    "varied": Program(
        path="rubrics.programs.wording:varied",
        label="Has a varied vocabulary",
        summary="different words by all words, over windows of 100",
        group="Wording",
        gives="share",
    ),
    "sources": Program(
        path="rubrics.programs.wording:sources",
        label="Names sources",
        summary="an address, a numbered reference, an author with a year",
        group="Wording",
    ),
    "figures": Program(
        path="rubrics.programs.wording:figures",
        label="Gives figures",
        summary="the share of words with a digit",
        group="Wording",
        gives="share",
    ),
    "units": Program(
        path="rubrics.programs.wording:units",
        label="Gives figures with units",
        summary="a figure with its unit or currency",
        group="Wording",
    ),
    "asked-keywords": Program(
        path="rubrics.programs.asked:asked_keywords",
        label="Has the keywords asked for",
        summary="the share of the words it should include",
        group="Asked",
        gives="share",
    ),
    "asked-without": Program(
        path="rubrics.programs.asked:without_words",
        label="Avoids the words it should avoid",
        summary="“do not use the word …”",
        group="Asked",
    ),
    "asked-no-commas": Program(
        path="rubrics.programs.asked:no_commas",
        label="Has no commas, as asked",
        summary="“without commas”",
        group="Asked",
    ),
    "asked-lower-case": Program(
        path="rubrics.programs.asked:lower_case",
        label="Is all lower case, as asked",
        summary="“in all lower case”",
        group="Asked",
    ),
    "asked-upper-case": Program(
        path="rubrics.programs.asked:upper_case",
        label="Is all capitals, as asked",
        summary="“in all capital letters”",
        group="Asked",
    ),
    "asked-letter": Program(
        path="rubrics.programs.asked:letter_count",
        label="Has the letter as often as asked",
        summary="“the letter q should appear at least 3 times”",
        group="Asked",
    ),
    "asked-word-count": Program(
        path="rubrics.programs.asked:word_count",
        label="Has the word as often as asked",
        summary="“the word ‘sun’ should appear at least twice”",
        group="Asked",
    ),
    "asked-postscript": Program(
        path="rubrics.programs.asked:postscript",
        label="Has the postscript asked for",
        summary="“add a postscript”",
        group="Asked",
    ),
    "asked-title": Program(
        path="rubrics.programs.asked:title",
        label="Has the title asked for",
        summary="a title in <<double angle brackets>>",
        group="Asked",
    ),
    "asked-quotes": Program(
        path="rubrics.programs.asked:quoted",
        label="Is in quotation marks, as asked",
        summary="“wrap your response in quotation marks”",
        group="Asked",
    ),
    "asked-ending": Program(
        path="rubrics.programs.asked:ending",
        label="Ends as asked",
        summary="“finish with the phrase …”",
        group="Asked",
    ),
    "asked-json": Program(
        path="rubrics.programs.asked:json_form",
        label="Is JSON, as asked",
        summary="“answer in JSON format”",
        group="Asked",
    ),
}


def find_criterion(text: str) -> tuple[str, bool] | None:
    """(key, whether it should hold) of a line that is a key or label, with "-" or "not:" before
    what should not be; None where it is neither."""
    line = text.strip()
    for mark in ("-", "−", "not:"):
        if line.lower().startswith(mark):
            found = _BY_NAME.get(line[len(mark) :].strip().casefold())
            return (found, False) if found else None
    found = _BY_NAME.get(line.casefold())
    return (found, True) if found else None


_BY_NAME: Final = {
    name.casefold(): key for key, row in PROGRAMS.items() for name in (key, row.label)
}
