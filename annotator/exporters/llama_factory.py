"""Rows for LLaMA-Factory: the ranking form of its sharegpt format, and the entry that names it."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, ClassVar, Final, Literal

import orjson
from pydantic import Field

from annotator.exporters.files import Row
from annotator.exporters.pair_format import PairFormat
from annotator.exporters.recipe import ExportOptions
from annotator.exporters.types import NotRepresentable, Rendered
from annotator.queries.pair_texts import PromptText, ResponseText

INFO: Final = "dataset_info.json"
TAGS: Final = {"user": "human", "assistant": "gpt"}
COLUMNS: Final = {
    "messages": "conversations",
    "chosen": "chosen",
    "rejected": "rejected",
    "system": "system",
}


class Options(ExportOptions):
    """What a ``llama-factory`` export can be told."""

    container: Literal["jsonl", "parquet"] = Field("jsonl", title="File type")


class LlamaFactory(PairFormat):
    """conversations, chosen, rejected, system."""

    reading: ClassVar[str] = (
        "LLaMA-Factory reads the columns that `dataset_info.json` names (`--stage dpo`, `--stage rm`)"
        " and none of the others: it has no place for margins or soft labels. An empty `system` lets"
        " its template put its own."
    )

    def wants_chat(self, style: str) -> bool:
        return True

    @property
    def style(self) -> str:
        return "sharegpt"

    @property
    def own(self) -> dict[str, str]:
        return {"conversations": "turns", "chosen": "turn", "rejected": "turn", "system": "text"}

    @property
    def column_notes(self) -> dict[str, str]:
        return {
            "conversations": "the turns before the answers, from human and gpt in turn",
            "chosen": "the better answer, by what decided the pair",
            "rejected": "the other answer",
            "system": "the system message; empty where there is none",
        }

    def prompt(self, prompt: PromptText) -> dict[str, Any]:
        """Turns and system message; only what LLaMA-Factory does not skip as broken."""
        messages, system = prompt.messages, ""
        if messages and messages[0]["role"] == "system":
            system, messages = messages[0]["content"], messages[1:]
        if not messages or (len(messages) == 1 and not messages[0]["content"]):
            return {}
        for place, message in enumerate(messages):
            if message["role"] != ("assistant" if place % 2 else "user"):
                raise NotRepresentable
        if len(messages) % 2 == 0:
            raise NotRepresentable
        turns = [{"from": TAGS[one["role"]], "value": one["content"]} for one in messages]
        return {"conversations": turns, "system": system}

    def identity(self, prompt: Any, source: PromptText) -> str:
        return orjson.dumps(prompt).decode()

    def answer(self, response: ResponseText) -> dict[str, str]:
        messages = super().answer(response)
        if len(messages) != 1 or messages[0]["role"] != "assistant":
            raise NotRepresentable
        return {"from": TAGS["assistant"], "value": messages[0]["content"]}

    def row(self, prompt: Any, one: Rendered) -> Row:
        return {
            "conversations": prompt["conversations"],
            "chosen": one.chosen,
            "rejected": one.rejected,
            "system": prompt["system"],
        }

    def extra_files(self, files: dict[str, list[str]]) -> dict[str, str]:
        """``dataset_info.json``: an entry for every file, since an entry names one."""
        entries = {
            entry: {
                "file_name": name,
                "formatting": "sharegpt",
                "ranking": True,
                "columns": COLUMNS,
            }
            for entry, name in _entries(files)
        }
        return {INFO: orjson.dumps(entries, option=orjson.OPT_INDENT_2).decode() + "\n"}

    def loading(self, files: dict[str, list[str]]) -> str:
        names = [entry for entry, _ in _entries(files)]
        split = next(iter(files), "train")
        trained = [one for one in names if one.startswith(_entry(split))]
        return (
            "import subprocess\n\n"
            "subprocess.run(\n"
            '    ["llamafactory-cli", "train", "--stage", "dpo", "--do_train",\n'
            '     "--model_name_or_path", "your/model", "--template", "your-template",\n'
            f'     "--dataset_dir", ".", "--dataset", "{",".join(trained)}",\n'
            '     "--output_dir", "trained"],\n'
            "    check=True,\n"
            ")\n"
        )

    @property
    def style_note(self) -> str:
        return (
            "sharegpt, ranking. Turns of human and gpt alternate and end with human; an answer is"
            " one message. Pairs that are not so are counted as not_representable."
        )

    def notes(self) -> list[str]:
        return [*super().notes(), self.reading]


def _entry(name: str) -> str:
    return f"touchstone_{name}"


def _entries(files: dict[str, list[str]]) -> list[tuple[str, str]]:
    """Names of entries with their files."""
    return [(_entry(PurePath(name).stem), name) for names in files.values() for name in names]
