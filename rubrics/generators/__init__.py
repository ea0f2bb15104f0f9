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
    "autorule": Method(
        path="rubrics.generators.autorule:AutoRuleGenerator",
        label="AutoRule",
        summary="rules out of a model's reasoning on pairs; a reward that is the share satisfied",
        options="rubrics.generators.autorule_options:AutoRuleOptions",
    ),
    "rlbff": Method(
        path="rubrics.generators.rlbff:RlbffGenerator",
        label="RLBFF",
        summary="binary principles out of what people wrote, quoted, and agreed on by all of them",
        options="rubrics.generators.rlbff_options:RlbffOptions",
    ),
    "autorubric-t2i": Method(
        path="rubrics.generators.autorubric:AutoRubricGenerator",
        label="AutoRubric-T2I",
        summary="criteria scored on every answer and weighed, in rounds aimed at hard pairs",
        options="rubrics.generators.autorubric_options:AutoRubricOptions",
    ),
}
