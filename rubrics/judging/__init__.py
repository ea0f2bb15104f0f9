"""AI judges as a table: what kinds there are, what each asks for, where its work is done.

Those in ``ASKING`` are AskingJudges, all others ScoringJudges (rubrics.judging.types). Those in
``ON_GPU`` load torch and run on the gpu queue; they are reached through models.gateway. Those in
``CONDITIONED`` take the criteria of a rubric's version.
"""

from __future__ import annotations

from typing import Final

from rubrics.registry import Method

ASKING: Final = frozenset({"llm", "rubric"})
CONDITIONED: Final = frozenset({"llm", "rubric"})
ON_GPU: Final = frozenset({"reward-model", "yes-no", "density-ratio", "endogenous"})

JUDGES: Final[dict[str, Method]] = {
    "llm": Method(
        path="rubrics.judging.llm:LlmJudge",
        label="Language model",
        summary="asks a model behind an endpoint, every pair in both orders",
        options="rubrics.judging.options:LlmOptions",
    ),
    "rubric": Method(
        path="rubrics.judging.rubric:RubricJudge",
        label="Rubric",
        summary="checks every criterion of every answer by itself, then sums up",
        options="rubrics.judging.rubric_options:RubricOptions",
    ),
    "program": Method(
        path="rubrics.programs.judge:ProgramJudge",
        label="Program",
        summary="verifiable criteria as code: free, instant, offline",
        options="rubrics.programs.options:ProgramOptions",
    ),
    "reward-model": Method(
        path="models.local_judges:RewardModelJudge",
        label="Reward model",
        summary="a reward model trained in this project",
        options="models.local_judge_options:RewardModelOptions",
    ),
    "yes-no": Method(
        path="models.local_judges:YesNoJudge",
        label="Yes or no",
        summary="how likely a local model finds “yes” to be the answer to “is this a good reply”",
        options="models.local_judge_options:YesNoOptions",
    ),
    "density-ratio": Method(
        path="models.local_judges:DensityRatioJudge",
        label="Density ratio",
        summary="how much likelier a strong local model finds a reply than a weak one does",
        options="models.local_judge_options:DensityRatioOptions",
    ),
    "endogenous": Method(
        path="models.local_judges:EndogenousJudge",
        label="Endogenous reward",
        summary="the reward that a local model's own logits imply, given the criteria",
        options="models.local_judge_options:EndogenousOptions",
    ),
}
