"""Responses that give their model away: what is found, and what is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.importers import leaks
from annotator.models import Response
from tests import factories
from tests.annotator.imported import jsonl, read


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("As ChatGPT, I cannot have opinions.", "ChatGPT"),
        ("I am Claude, made by Anthropic.", "Claude"),
        ("I'm Claude, an AI assistant. How can I help?", "Claude"),
        ("Hello! My name is Gemini, a large language model.", "Gemini"),
        ("I am a large language model, trained by Google.", "Google"),
        ("As an AI developed by OpenAI, I do not eat.", "OpenAI"),
        ("I was created by Mistral AI to help.", "Mistral AI"),
        ("I’m GPT-4, so no.", "GPT-4"),
        ("You can call me Qwen2.5. What is up?", "Qwen2.5"),
    ],
)
def test_text_that_names_itself_is_found(text: str, name: str) -> None:
    found = leaks.find(text)
    assert found is not None
    assert found.name == name
    assert name in found.quote


@pytest.mark.parametrize(
    "text",
    [
        "I am Claude Monet, and these are my lilies.",
        "I'm Claude, the baker of this village. Try my bread.",
        "As a Gemini, I love to talk; the zodiac sign has two sides.",
        "I am Gemini and you are Leo.",
        "GPT-4 was made by OpenAI; it came after GPT-3.",
        "BERT is a language model developed by Google.",
        "ChatGPT is a chatbot. As such it can be wrong.",
        "He was trained by Google engineers and now works at Meta.",
        "I am not sure which model is best: Claude, Gemini or Llama.",
        "As Falcon dived, I held my breath.",
        "The bard said: I am Bard the Bowman.",
        "I was made aware by Microsoft's press release of the change.",
        "",
    ],
)
def test_talk_about_models_and_other_namesakes_is_left_alone(text: str) -> None:
    assert leaks.find(text) is None


def test_own_name_counts_where_it_is_distinctive_and_new() -> None:
    assert leaks.find("This is vicuna-13b speaking.", generator="vicuna-13b") is not None
    assert (
        leaks.find("Compare vicuna-13b.", generator="vicuna-13b", prompt="On Vicuna-13B?") is None
    )
    assert leaks.find("The alpaca eats grass.", generator="alpaca") is None
    assert leaks.find("Only vicuna-13b-v2 here.", generator="vicuna-13b") is None


@given(st.text(max_size=200), st.text(max_size=20))
def test_redacting_ends_and_leaves_nothing_to_find(text: str, generator: str) -> None:
    clean, _ = leaks.redact(f"I am ChatGPT. {text} As GPT-4, I", generator=generator)
    assert leaks.find(clean, generator=generator) is None


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("mode", ["ignore", "flag", "redact"])
def test_import_does_with_leaks_what_the_project_says(mode: str, tmp_path: Path) -> None:
    project = factories.project(settings={"leaks": mode})
    texts = ["As ChatGPT, I like it.", "I like it."]
    rows = [{"prompt": "Well, ChatGPT?", "responses": texts}]
    path = jsonl(tmp_path / "rows.jsonl", rows)
    result = read(project, path)
    assert result["leaks"] == (mode != "ignore")
    leaky = Response.objects.get(project=project, text__endswith=" I like it.")
    if mode == "redact":
        assert leaky.text == "As [model], I like it."
        assert leaky.extra["unredacted"] == texts[0]
    else:
        assert leaky.text == texts[0]
    assert leaky.leak == ("" if mode == "ignore" else "ChatGPT")
    assert not Response.objects.get(project=project, text="I like it.").leak
    assert read(project, path)["responses"] == 0
