"""Every table, one module per noun family."""

from annotator.models.datasets import DatasetVersion
from annotator.models.judgments import Judgment, Preference
from annotator.models.people import ApiToken, Invitation, Membership, Rater, Role, User
from annotator.models.projects import Project, ProjectSettings, SplitShares
from annotator.models.prompts import Image, Prompt, Response, Split
from annotator.models.quality import Consensus, QualityReport, ReviewItem
from annotator.models.rewards import RewardModel
from annotator.models.runs import AuditEvent, ImportIssue, Run, RunPoint, RunState
from annotator.models.tasks import Assignment, AssignmentState, Comment, Group, Task

__all__ = [
    "ApiToken",
    "Assignment",
    "AssignmentState",
    "AuditEvent",
    "Comment",
    "Consensus",
    "DatasetVersion",
    "Group",
    "Image",
    "ImportIssue",
    "Invitation",
    "Judgment",
    "Membership",
    "Preference",
    "Project",
    "ProjectSettings",
    "Prompt",
    "QualityReport",
    "Rater",
    "Response",
    "ReviewItem",
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
