"""Generators of rubrics: methods that turn preferences into criteria people can read.

``types`` says what each is given and gives; ``GENERATORS`` is the table of them.
"""

from __future__ import annotations

from typing import Final

from rubrics.registry import Method

GENERATORS: Final[dict[str, Method]] = {
    "program": Method(
        path="rubrics.generators.program:ProgramGenerator",
        label="Programs",
        summary="chooses and weighs verifiable criteria: no model, no calls, offline",
        options="rubrics.generators.program_options:ProgramGeneratorOptions",
    ),
    "arr": Method(
        path="rubrics.generators.arr:ArrGenerator",
        label="ARR",
        summary="criteria from labeled pairs, each verified in both orders and on other prompts",
        options="rubrics.generators.arr_options:ArrOptions",
    ),
}
