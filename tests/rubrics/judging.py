"""Models to be judged by without a network: scripted ones, and the simulated mind itself."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from rubrics.judging.llm import LlmJudge
from rubrics.judging.options import LlmOptions
from rubrics.judging.sections import read_sections
from rubrics.judging.types import Candidate, Decision, Item
from rubrics.llm.types import CallFailed, Message, Reply, Request
from rubrics.simulated import asking, tokens
from rubrics.simulated.dials import Dials
from rubrics.simulated.handlers import handler_of
from rubrics.simulated.mind import Known, Mind, key_of

BASE_URL = "http://127.0.0.1:1/v1"
PROMPT = ({"role": "user", "content": "What is tea?"},)

Said = str | Reply | CallFailed


def item(*texts: str, kind: Any = "pairwise", id: int = 1, **more: Any) -> Item:
    return Item(id, kind, PROMPT, tuple(map(Candidate, texts)), **more)


def judge(**options: Any) -> LlmJudge:
    return LlmJudge(LlmOptions(**{"models": ["m"], **options}))


def decide(of: LlmJudge, what: Item, call: Any) -> Decision:
    return asyncio.run(of.judge(what, call))


def text_of(request: Request) -> str:
    """All text of a request, as a client would send it."""
    return "\n\n".join(
        part for message in request.messages for part in message.parts if isinstance(part, str)
    )


def sections_of(request: Request) -> dict[str, str]:
    return read_sections(text_of(request))


def answers_of(request: Request) -> list[str]:
    """The answers in the order shown."""
    found = sections_of(request)
    return [found[name] for name in sorted(found) if name.split()[0] == "answer"]


def reply(request: Request, said: Any, **more: Any) -> Reply:
    text = said if isinstance(said, str) else json.dumps(said)
    return Reply(text, request.key(BASE_URL), **more)


class Scripted:
    """Answers by a function of the request; what it was asked is in ``requests``."""

    def __init__(self, answer: Callable[[Request], Any]) -> None:
        self.answer = answer
        self.requests: list[Request] = []

    async def __call__(self, request: Request) -> Reply:
        self.requests.append(request)
        await asyncio.sleep(0)
        said = self.answer(request)
        if isinstance(said, CallFailed):
            raise said
        return said if isinstance(said, Reply) else reply(request, said)


def prefers(better: Callable[[str], float], **more: Any) -> Scripted:
    """A pairwise judge without bias: the answer of the higher value wins, with reasons."""

    def answer(request: Request) -> dict[str, Any]:
        first, second = map(better, answers_of(request))
        verdict = "tie" if first == second else "A" if first > second else "B"
        return {"reasoning": f"{verdict} it is", "verdict": verdict, "strength": 2, **more}

    return Scripted(answer)


class InProcess:
    """The simulated judge behind the same question that a server would get."""

    def __init__(
        self, dials: Dials, known: Mapping[str, float] | None = None, *, seed: int = 0
    ) -> None:
        self.dials = dials
        self.known = {key_of(text): Known(value) for text, value in (known or {}).items()}
        self.seed = seed
        self.calls = 0

    async def __call__(self, request: Request) -> Reply:
        self.calls += 1
        asked = asking.read(_body(request))
        said = handler_of(asked).answer(Mind(asked, self.dials, self.known, self.seed))
        top = None
        if request.top_logprobs:
            top = tuple(
                tuple((one["token"], one["logprob"]) for one in token["top_logprobs"])
                for token in tokens.log_probabilities(said, request.top_logprobs)
            )
        return Reply(said.text, request.key(BASE_URL), top_logprobs=top)


def _body(request: Request) -> dict[str, Any]:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": request.schema}}
    return {
        "model": request.model,
        "messages": [_message(message) for message in request.messages],
        "response_format": schema,
        "temperature": request.temperature,
        "seed": request.seed,
    }


def _message(message: Message) -> dict[str, Any]:
    parts = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {
            "type": "image_url",
            "image_url": {
                "url": f"data:{part.media_type};base64,{base64.b64encode(part.data).decode()}"
            },
        }
        for part in message.parts
    ]
    return {"role": message.role, "content": parts}
