"""Formats a dataset can be downloaded in: key -> what writes its rows."""

from __future__ import annotations

from typing import Final

from rubrics.registry import Method

EXPORTERS: Final[dict[str, Method]] = {
    "trl-preference": Method(
        path="annotator.exporters.trl:TrlPreference",
        label="TRL preference",
        summary="prompt, chosen, rejected: for DPOTrainer and its kin, prompt always explicit.",
        options="annotator.exporters.trl:Options",
    ),
    "trl-preference-implicit": Method(
        path="annotator.exporters.trl:TrlImplicit",
        label="TRL preference, implicit prompt",
        summary="chosen, rejected: whole conversations, each with the prompt in it.",
        options="annotator.exporters.trl:ImplicitOptions",
    ),
    "trl-unpaired": Method(
        path="annotator.exporters.unpaired:TrlUnpaired",
        label="TRL unpaired, KTO",
        summary="prompt, completion, label: every answer once, desirable or not, with a balance.",
        options="annotator.exporters.unpaired:Options",
    ),
    "trl-prompt-only": Method(
        path="annotator.exporters.trl:TrlPromptOnly",
        label="TRL prompt only",
        summary="prompt: for trainers that write the answers themselves.",
        options="annotator.exporters.trl:PromptOptions",
    ),
    "trl-reward": Method(
        path="annotator.exporters.trl:TrlReward",
        label="TRL reward",
        summary="chosen, rejected, margin: for RewardTrainer, a margin in every row.",
        options="annotator.exporters.trl:RewardOptions",
    ),
    "ranked-lists": Method(
        path="annotator.exporters.lists:RankedLists",
        label="Ranked lists",
        summary="prompt, responses best first, ranks, rewards: for InfoNCA, NCA and PRO.",
        options="annotator.exporters.lists:Options",
    ),
    "openai-preference": Method(
        path="annotator.exporters.openai_preference:OpenAiPreference",
        label="OpenAI preference",
        summary="input, preferred_output, non_preferred_output: JSONL for hosted fine-tuning.",
        options="annotator.exporters.openai_preference:Options",
    ),
    "llama-factory": Method(
        path="annotator.exporters.llama_factory:LlamaFactory",
        label="LLaMA-Factory",
        summary="sharegpt, ranking: conversations, chosen, rejected, with dataset_info.json.",
        options="annotator.exporters.llama_factory:Options",
    ),
    "openrlhf": Method(
        path="annotator.exporters.openrlhf:OpenRlhf",
        label="OpenRLHF",
        summary="prompt, chosen, rejected, margin, with the flags that name them.",
        options="annotator.exporters.openrlhf:Options",
    ),
    "nemo": Method(
        path="annotator.exporters.nemo:Nemo",
        label="NeMo-Aligner",
        summary="prompt, chosen_response, rejected_response and both rewards, for DPO and RPO.",
        options="annotator.exporters.nemo:Options",
    ),
    "pick-a-pic": Method(
        path="annotator.exporters.pick_a_pic:PickAPic",
        label="Pick-a-Pic",
        summary="pairs of pictures, their bytes in the rows: for Diffusion-DPO and PickScore.",
        options="annotator.exporters.pick_a_pic:Options",
    ),
    "judgments": Method(
        path="annotator.exporters.judgments:Judgments",
        label="Raw judgments",
        summary="one row per judgment of any kind: verdict, ratings, reasons, who, when, on what.",
        options="annotator.exporters.judgments:Options",
    ),
    "ratings": Method(
        path="annotator.exporters.ratings:Ratings",
        label="Raw ratings",
        summary="one row per judgment, response and attribute or criterion: value, who, when.",
        options="annotator.exporters.ratings:Options",
    ),
    "rubric-rows": Method(
        path="annotator.exporters.rubric_rows:RubricRows",
        label="Rubric rows",
        summary="criterion, prompt, answer, verdict, and who says so: to train verifiers on.",
        options="annotator.exporters.rubric_rows:Options",
    ),
}
