"""What goes along with a downloaded reward model: a README.md in the form of a model card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from annotator.models import Project, RewardModel
from annotator.queries.rewards import Estimate, Measured, described, measured
from models.transforms import COMBINATIONS, LOG_ODDS

NAME: Final = "README.md"
CONFIG: Final = "config.json"
FIRST_MEMBER: Final = "member-1"  # of an ensemble
STATE: Final = "objective.safetensors"  # what an objective adds to the weights of a backbone

TRANSFORMERS: Final = """\
```python
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "."  # where this file is
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
chat = [{"role": "user", "content": "Why is the sky blue?"},
        {"role": "assistant", "content": "Air scatters blue light most."}]
ids = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)
with torch.inference_mode():
    print(model(**ids).logits.item())
```
"""
GATEWAY: Final = """\
From a checkout of Touchstone, on whose `models` package alone the loader depends (no server, no
database; put the checkout on `PYTHONPATH`):

```python
from models.gateway import load_reward_model

model = load_reward_model(".")  # where this file is
prompt = [{"role": "user", "content": "Why is the sky blue?"}]
answers = ["Air scatters blue light most.", "Because it is."]
scores = model.score([(prompt, answer) for answer in answers])
for answer, score in zip(answers, scores):
    print(float(score), answer)
```
"""

MEMBERS: Final = """\
`score` is the mean of the members, each in its own standard deviations over the reference answers.
More cautious scores, and how far members disagree, are made of what each says:

```python
from models.transforms import combine, ensemble_variance

members = model.score_members([(prompt, answer) for answer in answers])  # (members, answers)
print(combine(members, "worst"), combine(members, "penalized"), ensemble_variance(members))
```
"""


def is_plain(folder: Path) -> bool:
    """Whether plain transformers loads it and its one output is the score."""
    try:
        config = orjson.loads((folder / CONFIG).read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return False
    names = config.get("architectures") or []
    labels = config.get("id2label") or {}
    single = len(labels) == 1 or config.get("num_labels") == 1
    is_classifier = any(str(name).endswith("ForSequenceClassification") for name in names)
    return is_classifier and single and not (folder / STATE).exists()


def card(model: RewardModel, *, folder: Path) -> str:
    """The card as Markdown: what the model is, of what data, how good, where it ends."""
    metrics, project = model.metrics, model.project
    found = measured(metrics)
    about = (
        f"A reward model: {described(model)}. It gives an answer to a "
        "prompt a score; of two answers to one prompt the one with the higher score is the one "
        "that raters are expected to prefer."
    )
    lines = [
        *_front(model, plain=is_plain(folder)),
        f"# {_line(project.name)}, {model.name}",
        "",
        about,
        "",
        "## Accuracy",
        "",
        *_accuracy(found, metrics),
        *_members(metrics),
        "## Data",
        "",
        *_data(project, metrics),
        "## How it was trained",
        "",
        *_table(("option", "value"), _options(model)),
        "## Load it",
        "",
        *_loading(model, folder),
        "## Limits",
        "",
        *_limits(model, found),
    ]
    return "\n".join(lines)


def _front(model: RewardModel, *, plain: bool) -> Iterator[str]:
    """The block that model hubs read."""
    yield "---"
    if plain:
        yield "library_name: transformers"
        yield "pipeline_tag: text-classification"
    yield "tags:"
    yield "- reward-model"
    yield "- touchstone"
    yield "---"
    yield ""


def _accuracy(found: Measured, metrics: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        ("this model", found.accuracy),
        ("the longer answer wins", found.longer),
        ("people with people", found.people),
    ]
    known = [(name, *_cells(one)) for name, one in rows if one is not None]
    if known:
        yield (
            "On the test split, strict: equal scores count as wrong. Brackets are 95 % intervals, "
            f"method {metrics.get('interval_method') or 'not noted'}; pairs of one prompt are "
            "counted as dependent."
        )
        yield ""
        yield from _table(("", "accuracy", "95 % interval", "counted"), known)
    else:
        yield "No pair of the test split has a preference: its accuracy is not known."
        yield ""
    if found.people is None and found.people_reason:
        yield f"There is no human ceiling: {found.people_reason}"
        yield ""


def _members(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Of an ensemble: each member, and how they are combined."""
    ensemble = metrics.get("ensemble")
    if not ensemble:
        return
    reference = ensemble["reference"]
    yield "## Members"
    yield ""
    yield (
        f"{ensemble['members']} models that differ by seed, trained in one run, and put on one scale"
        f" by {reference['n']:,} answers of the {reference['split']} split. They correlate at"
        f" {_rounded(ensemble['correlation'])} on those; on {_share(ensemble['disagree'])} of"
        f" {ensemble['disagree_n']:,} test pairs not all prefer the same answer. The accuracy above is"
        " that of their mean."
    )
    yield ""
    heads = ("member", "seed", "accuracy", "95 % interval", "center", "scale")
    yield from _table(heads, [
        (n, one["seed"], *_estimate(one), _rounded(one["center"]), _rounded(one["scale"]))
        for n, one in enumerate(ensemble["each"], start=1)
    ])  # fmt: skip
    heads = ("combined by", "what it is", "accuracy", "95 % interval")
    yield from _table(heads, [
        (key, COMBINATIONS[key], *_estimate(told)) for key, told in ensemble["ways"].items()
    ])  # fmt: skip


def _estimate(told: Mapping[str, Any]) -> tuple[str, str]:
    if told["accuracy"] is None:
        return "not known", ""
    low, high = told["interval"]
    return _share(told["accuracy"]), f"[{100 * low:.1f}, {100 * high:.1f}]"


def _share(value: float | None) -> str:
    return "an unknown share" if value is None else f"{100 * value:.1f} %"


def _rounded(value: float | None) -> str:
    return "an unknown value" if value is None else f"{value:.3g}"


def _loading(model: RewardModel, folder: Path) -> Iterator[str]:
    if is_plain(folder):
        yield TRANSFORMERS
        return
    yield GATEWAY
    if not model.metrics.get("ensemble"):
        return
    yield MEMBERS
    if is_plain(folder / FIRST_MEMBER):
        yield "Each member is a plain transformer by itself:"
        yield ""
        yield TRANSFORMERS.replace('folder = "."', f'folder = "{FIRST_MEMBER}"')


def _cells(one: Estimate) -> tuple[str, str, str]:
    interval = f"[{100 * one.low:.1f}, {100 * one.high:.1f}]"
    return f"{100 * one.share:.1f} %", interval, f"{one.n:,}"


def _data(project: Project, metrics: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"Preferences of the project “{_line(project.name)}”"
        + (", **simulated**: its raters are programs" if project.is_simulated else "")
        + ". A prompt belongs to one split, drawn from its hash, so none is on two sides."
    )
    yield ""
    splits = [
        (name, _count(metrics.get(key)))
        for name, key in (
            ("train", "train_pairs"), ("validation", "validation_pairs"), ("test", "test_pairs"),
        )
    ]  # fmt: skip
    yield from _table(("split", "pairs"), splits)
    yield f"SHA-256 of the pairs: `{metrics.get('data_sha256') or 'not noted'}`"
    yield ""


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "not noted"


def _options(model: RewardModel) -> list[tuple[str, str]]:
    metrics = model.metrics
    kept = metrics.get("kept") or {}
    rows = {"objective": model.objective, "backbone": _shown(model.backbone)}
    rows |= {name: _shown(value) for name, value in sorted(model.options.items())}
    rows |= {
        "seed": _shown(metrics.get("seed")),
        "updates": f"{_count(metrics.get('steps'))}, {metrics.get('ended', '')}".rstrip(", "),
        "weights of": f"update {_count(kept.get('step'))}, {kept.get('why', '')}".rstrip(", "),
    }
    versions = metrics.get("versions") or {}
    rows |= {str(name): _shown(version) for name, version in sorted(versions.items())}
    return list(rows.items())


def _limits(model: RewardModel, found: Measured) -> Iterator[str]:
    yield "- Scores compare answers to one prompt; between prompts they mean nothing."
    if ensemble := model.metrics.get("ensemble"):
        yield (
            "- Scores are in standard deviations; times "
            f"{_rounded(ensemble['unit'])} a difference is in the unit of the objective"
            + (", log-odds." if model.objective in LOG_ODDS else ".")
        )
        yield (
            "- Members share a backbone and their data, and so their blind spots: where all agree"
            " they may all be wrong."
        )
    elif model.objective in LOG_ODDS:
        yield (
            "- The difference of two scores is the model’s own log-odds that the first answer is "
            "preferred; how well calibrated that is, an evaluation says."
        )
    else:
        yield "- The difference of two scores is no log-odds: only their order means something."
    if found.longer and found.accuracy and found.accuracy.low <= found.longer.high:
        yield (
            "- Its interval overlaps that of always choosing the longer answer: it has not shown "
            "that it learned more than length."
        )
    yield (
        "- It knows the raters, prompts and generators of its data and no others. Optimizing "
        "against it finds its errors: hold out a gold measure."
    )
    yield ""


def _table(heads: tuple[str, ...], rows: list[Any]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(_line(str(cell)) for cell in row)} |"
    yield ""


def _shown(value: Any) -> str:
    """A value without what names the server it was trained on: of a folder its last part."""
    key, colon, argument = str(value).partition(":")
    if colon and argument.startswith("/"):
        return f"{key}:{argument.rstrip('/').rpartition('/')[2]}"
    return str(value)


def _line(text: str) -> str:
    """Foreign text on one line of Markdown, without a meaning of its own."""
    plain = " ".join(text.split())
    for sign in "\\`*_[]<>|#":
        plain = plain.replace(sign, f"\\{sign}")
    return plain
