"""Every table, one module per noun family."""

from annotator.models.datasets import DatasetVersion, Recipe, RecipeVersion
from annotator.models.judges import (
    Acceptance,
    AcceptRule,
    Battery,
    Endpoint,
    Judge,
    JudgeAnswer,
    JudgeOutcome,
    JudgeReport,
    LlmCall,
)
from annotator.models.judgments import Judgment, Preference
from annotator.models.people import ApiToken, Invitation, Membership, Rater, Role, User
from annotator.models.projects import Project, ProjectSettings, SplitShares
from annotator.models.prompts import Image, Prompt, Response, Split
from annotator.models.quality import Consensus, QualityReport, ReviewItem
from annotator.models.rewards import RewardModel, RewardScore
from annotator.models.rubrics import (
    Criterion,
    CriterionEvidence,
    CriterionVerdict,
    Rubric,
    RubricMeasurement,
    RubricVersion,
)
from annotator.models.runs import AuditEvent, ImportIssue, Run, RunPoint, RunState
from annotator.models.tasks import Assignment, AssignmentState, Comment, Group, Task

__all__ = [
    "AcceptRule",
    "Acceptance",
    "ApiToken",
    "Assignment",
    "AssignmentState",
    "AuditEvent",
    "Battery",
    "Comment",
    "Consensus",
    "Criterion",
    "CriterionEvidence",
    "CriterionVerdict",
    "DatasetVersion",
    "Endpoint",
    "Group",
    "Image",
    "ImportIssue",
    "Invitation",
    "Judge",
    "JudgeAnswer",
    "JudgeOutcome",
    "JudgeReport",
    "Judgment",
    "LlmCall",
    "Membership",
    "Preference",
    "Project",
    "ProjectSettings",
    "Prompt",
    "QualityReport",
    "Rater",
    "Recipe",
    "RecipeVersion",
    "Response",
    "ReviewItem",
    "RewardModel",
    "RewardScore",
    "Role",
    "Rubric",
    "RubricMeasurement",
    "RubricVersion",
    "Run",
    "RunPoint",
    "RunState",
    "Split",
    "SplitShares",
    "Task",
    "User",
]
