"""Which pretrained models may be named: hub ids, and folders the operator allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from annotator.errors import Invalid
from annotator.services import backbones


@pytest.fixture
def roots(tmp_path: Path, settings: Any) -> Path:
    root = tmp_path / "models"
    (root / "tiny").mkdir(parents=True)
    (root / "tiny" / "config.json").write_text("{}")
    settings.MODEL_ROOTS = [root, tmp_path / "absent"]
    return root


@pytest.mark.parametrize(
    "name", ["hf:distilbert-base-uncased", "hf:Qwen/Qwen3-0.6B", "hf:a/b_c.d-e", "hashing"]
)
def test_hub_ids_are_taken_as_they_are(roots: Path, name: str) -> None:
    assert backbones.allowed(name) == name


def test_folder_inside_the_roots_is_allowed(roots: Path) -> None:
    assert backbones.allowed(f"hf:{roots}/tiny") == f"hf:{roots.resolve()}/tiny"
    assert backbones.allowed(f"hf:{roots}/../models/tiny") == f"hf:{roots.resolve()}/tiny"
    assert backbones.local_models() == [str(roots.resolve() / "tiny")]


@pytest.mark.parametrize(
    "argument",
    [
        "/etc",
        "/",
        "../..",
        "./models",
        "~",
        "~root/x",
        "a/b/c",
        "models/neural",
        "annotator",
        "templates/base.html",
        "..",
        "x/..",
        "https://example.org/m",
        "file:///etc",
        "a b",
        "org/name\n/etc",
        "órg/näme",
        "-org/name",
        "org/",
        "/etc\0",
        "\0",
    ],
)
def test_whatever_else_names_the_disk_is_refused(roots: Path, argument: str) -> None:
    """Also what looks like a hub id and is a folder of the checkout, which would be read."""
    with pytest.raises(Invalid):
        backbones.allowed(f"hf:{argument}")


def test_link_out_of_the_roots_is_refused(roots: Path, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (roots / "way-out").symlink_to(tmp_path / "private")
    with pytest.raises(Invalid):
        backbones.allowed(f"hf:{roots}/way-out")


def test_refusal_does_not_say_what_exists(roots: Path, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    said = set()
    for name in ("private", "nothing-there"):
        with pytest.raises(Invalid) as refused:
            backbones.allowed(f"hf:{tmp_path}/{name}")
        said.add(refused.value.message)
    assert len(said) == 1


def test_operator_may_name_any_folder(roots: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    name = f"hf:{tmp_path}/elsewhere"
    assert backbones.allowed(name, by_operator=True) == f"hf:{(tmp_path / 'elsewhere').resolve()}"
    with pytest.raises(Invalid, match="no folder"):
        backbones.allowed(f"hf:{tmp_path}/missing", by_operator=True)
