"""Every table, one module per noun family."""

from annotator.models.datasets import DatasetVersion
from annotator.models.judgments import Judgment, Preference
from annotator.models.people import ApiToken, Invitation, Membership, Rater, Role, User
from annotator.models.projects import Project, ProjectSettings, SplitShares
from annotator.models.prompts import Prompt, Response, Split
from annotator.models.rewards import RewardModel
from annotator.models.runs import AuditEvent, ImportIssue, Run, RunPoint, RunState
from annotator.models.tasks import Assignment, AssignmentState, Task

__all__ = [
    "ApiToken",
    "Assignment",
    "AssignmentState",
    "AuditEvent",
    "DatasetVersion",
    "ImportIssue",
    "Invitation",
    "Judgment",
    "Membership",
    "Preference",
    "Project",
    "ProjectSettings",
    "Prompt",
    "Rater",
    "Response",
    "RewardModel",
    "Role",
    "Run",
    "RunPoint",
    "RunState",
    "Split",
    "SplitShares",
    "Task",
    "User",
]
