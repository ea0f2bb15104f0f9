"""Which pretrained models may be named, by whom.

A name reaches ``from_pretrained`` in the training process. Hub ids are fine. Local folders are
the operator's: an owner may name one only inside ``settings.MODEL_ROOTS``. Code that comes with a
model is never run (``trust_remote_code`` is never set).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from django.conf import settings

from annotator.errors import Invalid
from annotator.models import Project
from models.backbones import BACKBONES, READS_PICTURES, TAKES_ARGUMENT, split_backbone
from models.errors import ModelsError

# As the hub allows them: owner/name, or the bare name of its oldest models.
HUB_ID: Final = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
LONGEST: Final = 290  # RewardModel.backbone holds 300 with its key
LISTED: Final = 50


def allowed(backbone: str, *, by_operator: bool = False) -> str:
    """``backbone`` with a local path made absolute. Raises Invalid for one not to be used.

    ``by_operator``: whoever runs commands on the server may name any folder.
    """
    try:
        key, argument = split_backbone(backbone)
    except ModelsError as error:
        raise Invalid(error.message, advice=error.advice) from None
    if not argument:
        return key
    if "\0" in argument or len(argument) > LONGEST:
        raise Invalid("That is not the name of a model.")
    if not is_path(argument):
        return f"{key}:{argument}"
    path = Path(argument).expanduser().resolve() if by_operator else inside_roots(argument)
    if not path.is_dir():
        raise Invalid(f"There is no folder {path}.", advice="Check the path of the model.")
    if len(str(path)) > LONGEST:
        raise Invalid("The path of the model is too long.")
    return f"{key}:{path}"


def require_fit(project: Project, backbone: str) -> None:
    """Raises Invalid, with what to choose, for one that cannot read the answers of a project."""
    key = split_backbone(backbone)[0]
    fitting = for_project(project)
    if key in fitting:
        return
    is_images = project.modality == Project.Modality.IMAGE
    reads = "pictures" if key in READS_PICTURES else "texts"
    names = [f"{one}:<id>" if one in TAKES_ARGUMENT else one for one in fitting]
    raise Invalid(
        f"The answers of this project are {'images' if is_images else 'texts'},"
        f" and the backbone “{BACKBONES[key].label}” reads {reads}.",
        advice=f"Choose {' or '.join(names)}.",
    )


def for_project(project: Project) -> list[str]:
    """Keys of the backbones that read what the answers of a project are, in table order."""
    is_images = project.modality == Project.Modality.IMAGE
    return [key for key in BACKBONES if (key in READS_PICTURES) == is_images]


def is_path(argument: str) -> bool:
    """Whether a model's name means a folder of this machine rather than a hub id.

    transformers takes whatever exists in the current folder for a path before it asks the hub:
    ``var/media`` looks like a hub id and must not read a folder of the server.
    """
    return HUB_ID.fullmatch(argument) is None or ".." in argument or _exists_here(argument)


def inside_roots(argument: str) -> Path:
    """The folder an owner named, links resolved. Raises Invalid outside ``MODEL_ROOTS``.

    The message is the same whether something is there or not: nobody may explore the disk.
    """
    path = Path(argument).resolve()
    if not any(path.is_relative_to(root.resolve()) for root in settings.MODEL_ROOTS):
        raise Invalid(
            "That is neither a model id of the Hugging Face hub nor a folder the operator allows.",
            advice="Write owner/name, or a folder inside MODEL_ROOTS.",
        )
    return path


def local_models() -> list[str]:
    """Folders of pretrained models an owner may choose, the first few in name order."""
    found: list[str] = []
    for root in settings.MODEL_ROOTS:
        folders = sorted(config.parent.resolve() for config in root.glob("*/config.json"))
        found += [str(folder) for folder in folders if folder.is_relative_to(root.resolve())]
    return found[:LISTED]


def _exists_here(argument: str) -> bool:
    return (Path(settings.BASE_DIR) / argument).exists() or Path(argument).exists()
