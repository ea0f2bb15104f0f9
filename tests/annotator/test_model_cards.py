"""The card that goes along with a download, and that what it says of loading is true."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from django.test import Client

from annotator.models import Project, RewardModel, Role
from annotator.services import model_cards, training
from models import gateway
from tests import factories
from tests.annotator.asking import model_of
from tests.annotator.test_training_pages import METRICS

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).resolve().parents[2]
PROMPT = [{"role": "user", "content": "Why is the sky blue?"}]


def downloaded(model: RewardModel, into: Path) -> Path:
    """The folder that the download unpacks to."""
    client = Client()
    client.force_login(factories.member(model.project, Role.OWNER))
    address = f"/p/{model.project.slug}/reward-models/{model.number}/artifact.zip"
    body = b"".join(client.get(address).streaming_content)
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.testzip() is None
        archive.extractall(into)
    return into / f"{model.project.slug}-{model.name}"


def run_block(folder: Path) -> str:
    """What the code of the card prints, run in the unpacked folder by a fresh interpreter."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.neural
@pytest.mark.slow
def test_loader_of_the_card_gives_the_products_scores(tmp_path: Path) -> None:
    model = model_of(factories.project())
    folder = downloaded(model, tmp_path)
    told = [float(line.split()[0]) for line in run_block(folder).splitlines()]
    answers = ["Air scatters blue light most.", "Because it is."]
    request = {
        "method": "reward-model", "folder": str(training.artifact_folder(model)),
        "asked": [(PROMPT, answer) for answer in answers],
    }  # fmt: skip
    try:
        assert told == pytest.approx(gateway.score_in_child(request)["scores"], abs=1e-6)
    finally:
        gateway.release()


@pytest.mark.neural
@pytest.mark.slow
def test_scalar_transformer_loads_in_plain_transformers(tmp_path: Path) -> None:
    from tests.models import tiny  # and torch with it

    base = tiny.qwen(tmp_path / "srv" / "base")
    model = model_of(factories.project(), backbone=f"hf:{base}", epochs=1)
    unpacked = downloaded(model, tmp_path)
    text = (unpacked / "README.md").read_text()
    assert "library_name: transformers" in text
    assert str(tmp_path) not in text
    own = gateway.load_reward_model(training.artifact_folder(model), device="cpu")
    expected = own.score([(PROMPT, "Air scatters blue light most.")])[0]
    assert float(run_block(unpacked)) == pytest.approx(expected, abs=1e-5)


@pytest.fixture
def project() -> Project:
    return factories.project("cards", name="A *name* | with `signs`")


def made(project: Project, tmp_path: Path, **fields: object) -> str:
    model = RewardModel(project=project, number=3, **({
        "objective": "bradley-terry", "backbone": "hashing", "metrics": METRICS,
        "options": {"epochs": 10, "l2": 30.0},
    } | fields))  # fmt: skip
    return model_cards.card(model, folder=tmp_path)


def test_card_says_what_it_is_of_what_and_how_good(project: Project, tmp_path: Path) -> None:
    text = made(project, tmp_path)
    assert "Bradley–Terry, Hashed n-grams" in text
    assert "| this model | 74.1 % | \\[69.9, 77.9\\] | 462 |" in text
    assert "| the longer answer wins | 54.1 % | \\[49.6, 58.6\\] | 462 |" in text
    assert "| people with people | 78.4 % | \\[76.0, 80.6\\] | 1,210 |" in text
    assert f"`{'4be1' * 16}`" in text
    for row in ("| train | 1,840 |", "| validation | 230 |", "| test | 462 |", "| epochs | 10 |"):
        assert row in text
    assert "log-odds that the first" in text
    assert "learned more than length" not in text


def test_card_does_not_claim_more_than_was_measured(project: Project, tmp_path: Path) -> None:
    nothing = {"accuracy": None, "baselines": {"human_ceiling": {"reason": "Nobody overlaps."}}}
    text = made(project, tmp_path, metrics=nothing, objective="regression")
    assert "its accuracy is not known" in text
    assert "Nobody overlaps." in text
    assert "only their order means something" in text
    assert "| train | not noted |" in text
    close = METRICS | {"accuracy": 0.56, "interval": [0.51, 0.61]}
    assert "learned more than length" in made(project, tmp_path, metrics=close)


def test_names_on_the_card_have_no_meaning_of_their_own(project: Project, tmp_path: Path) -> None:
    text = made(project, tmp_path)
    assert "# A \\*name\\* \\| with \\`signs\\`, rm-3" in text
    hostile = Project(name="x\n# Not a heading\n<script>", slug="x")
    text = made(hostile, tmp_path)
    assert "\n# Not" not in text
    assert "<script>" not in text.replace("\\<script\\>", "")


def test_simulated_data_are_called_so(project: Project, tmp_path: Path) -> None:
    project.is_simulated = True
    assert "**simulated**" in made(project, tmp_path)


@pytest.mark.parametrize(
    ("config", "plain"),
    [
        ('{"architectures": ["BertForSequenceClassification"], "id2label": {"0": "a"}}', True),
        (
            '{"architectures": ["BertForSequenceClassification"], "id2label": {"0": 1, "1": 2}}',
            False,
        ),
        ('{"architectures": ["LlamaForCausalLM"], "id2label": {"0": "a"}}', False),
        ("{", False),
    ],
)
def test_plain_is_what_one_output_and_nothing_else_scores(
    tmp_path: Path, config: str, plain: bool
) -> None:
    (tmp_path / "config.json").write_text(config)
    assert model_cards.is_plain(tmp_path) is plain
    (tmp_path / model_cards.STATE).write_bytes(b"")
    assert not model_cards.is_plain(tmp_path)
