"""Generators of rubrics: methods that turn preferences into criteria people can read.

``types`` says what each is given and gives; ``GENERATORS`` is the table of them.
"""

from __future__ import annotations

from typing import Final

from rubrics.registry import Method

GENERATORS: Final[dict[str, Method]] = {}
