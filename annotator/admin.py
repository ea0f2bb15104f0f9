"""The operator's pages: every table, cheap to list at any size, history read-only.

Lists count nothing (``show_full_result_count``, a paginator that stops counting), sort by key and
fetch what they show in one statement. What the product only ever adds to cannot be changed here.
"""

from __future__ import annotations

from typing import Any, Final

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.forms import AdminUserCreationForm, UserChangeForm
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property

from annotator import models

COUNTED: Final = 10_000
NUMBERS: Final = ("pk",)  # shows the search box of a table that is searched by number alone


admin.site.site_header = admin.site.site_title = "Touchstone, operator pages"
admin.site.index_title = "Tables"
# One way in, with its second factor and its limit of attempts: the product's own sign-in.
admin.site.login = secure_admin_login(admin.site.login)


class BoundedPaginator(Paginator):
    """Counts up to ``COUNTED`` rows: an exact count of a large table would take seconds."""

    @cached_property
    def count(self) -> int:
        return self.object_list.order_by().values("pk")[:COUNTED].count()


class TableAdmin(admin.ModelAdmin):
    """What every list shares."""

    paginator = BoundedPaginator
    show_full_result_count = False
    list_per_page = 50
    ordering = ("-pk",)
    # Numbers are looked for in these columns, as numbers: as text no index would serve.
    keys: tuple[str, ...] = ("pk",)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet, search_term: str
    ) -> tuple[QuerySet, bool]:
        term = search_term.strip()
        if term.isascii() and term.isdecimal() and len(term) < 19:
            wanted = Q()
            for key in self.keys:
                wanted |= Q(**{key: int(term)})
            return queryset.filter(wanted), False
        if term and self.search_fields == NUMBERS:
            return queryset.none(), False
        return super().get_search_results(request, queryset, search_term)


class HistoryAdmin(TableAdmin):
    """A table whose rows are only ever added, and not by hand."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class _LowerEmail:
    """Accounts are found by their address in lower case."""

    def clean_email(self) -> str:
        return self.cleaned_data["email"].lower()


class AccountForm(_LowerEmail, UserChangeForm):
    pass


class NewAccountForm(_LowerEmail, AdminUserCreationForm):
    pass


@admin.register(models.User)
class AccountAdmin(UserAdmin):
    form = AccountForm
    add_form = NewAccountForm
    paginator = BoundedPaginator
    show_full_result_count = False
    ordering = ("-pk",)
    list_display = ("email", "name", "is_active", "is_staff", "may_create_projects", "date_joined")
    list_filter = ("is_active", "is_staff", "may_create_projects")
    search_fields = ("email__startswith", "name__startswith")
    filter_horizontal = ()
    readonly_fields = ("date_joined", "last_login")
    fieldsets = (
        (None, {"fields": ("email", "name", "password")}),
        ("May", {"fields": ("is_active", "may_create_projects", "is_staff", "is_superuser")}),
        ("Preferences", {"fields": ("single_keys", "theme")}),
        ("Dates", {"fields": ("date_joined", "last_login")}),
    )
    add_fieldsets = ((None, {"fields": ("email", "name", "password1", "password2")}),)


class MembershipInline(admin.TabularInline):
    model = models.Membership
    raw_id_fields = ("user",)
    extra = 0
    # A project of the size of a company still has a form that opens.
    max_num = 200

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).select_related("user")


@admin.register(models.Project)
class ProjectAdmin(TableAdmin):
    list_display = ("slug", "name", "modality", "is_simulated", "created_at", "archived_at")
    list_filter = ("modality", "is_simulated")
    search_fields = ("slug__startswith", "name__startswith")
    readonly_fields = ("created_at",)
    inlines = (MembershipInline,)


@admin.register(models.Membership)
class MembershipAdmin(TableAdmin):
    list_display = ("project", "user", "role", "created_at")
    list_filter = ("role",)
    list_select_related = ("project", "user")
    search_fields = ("user__email__startswith", "project__slug__startswith")
    raw_id_fields = ("project", "user")


@admin.register(models.Invitation)
class InvitationAdmin(TableAdmin):
    list_display = ("project", "role", "used", "places", "expires_at", "revoked_at", "created_by")
    list_select_related = ("project", "created_by")
    search_fields = ("project__slug__startswith",)
    raw_id_fields = ("project", "created_by")
    readonly_fields = ("used", "created_at")
    exclude = ("token_hash",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # without its token a link is of no use to anybody


@admin.register(models.ApiToken)
class ApiTokenAdmin(TableAdmin):
    list_display = ("user", "name", "created_at", "last_used_at", "revoked_at")
    list_select_related = ("user",)
    search_fields = ("user__email__startswith",)
    raw_id_fields = ("user",)
    readonly_fields = ("user", "name", "created_at", "last_used_at")
    exclude = ("token_hash",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False


@admin.register(models.Rater)
class RaterAdmin(TableAdmin):
    list_display = ("name", "project", "kind", "is_simulated", "judged", "skipped", "created_at")
    list_filter = ("kind", "is_simulated")
    list_select_related = ("project",)
    search_fields = ("name__startswith", "user__email__startswith")
    raw_id_fields = ("project", "user")
    # The queue keeps these in step with its tasks.
    readonly_fields = (
        "judged",
        "skipped",
        "mark_priority",
        "mark_position",
        "mark_task_id",
        "claims_since_mark",
    )


@admin.register(models.Prompt)
class PromptAdmin(TableAdmin):
    list_display = ("id", "project", "split", "external_id", "created_at")
    list_select_related = ("project",)
    raw_id_fields = ("project",)
    readonly_fields = ("split", "content_hash", "created_at")
    search_fields = NUMBERS


@admin.register(models.Response)
class ResponseAdmin(TableAdmin):
    list_display = ("id", "project", "prompt_id", "generator", "created_at")
    list_select_related = ("project",)
    raw_id_fields = ("project", "prompt")
    readonly_fields = ("content_hash", "created_at")
    search_fields = NUMBERS


@admin.register(models.Task)
class TaskAdmin(TableAdmin):
    list_display = ("id", "project", "kind", "overlap", "judged", "free", "priority", "is_gold")
    list_select_related = ("project",)
    raw_id_fields = ("project", "prompt")
    # Only services change these, each with what hangs on it: places, edges, marks.
    readonly_fields = (
        *("overlap", "judged", "free", "priority", "position", "group_id"),
        *("is_gold", "is_qualification", "gold", "is_settled"),
        *("response_ids", "content_hash", "created_at"),
    )
    search_fields = NUMBERS


@admin.register(models.Assignment)
class AssignmentAdmin(HistoryAdmin):
    list_display = ("id", "project", "task_id", "rater", "state", "leased_at", "closed_at")
    list_select_related = ("project", "rater")
    search_fields = NUMBERS
    keys = ("pk", "task_id")


@admin.register(models.Judgment)
class JudgmentAdmin(HistoryAdmin):
    list_display = (
        "id",
        "project",
        "task_id",
        "rater",
        "kind",
        "revision",
        "is_current",
        "submitted_at",
    )
    list_select_related = ("project", "rater")
    search_fields = NUMBERS
    keys = ("pk", "task_id")


@admin.register(models.Preference)
class PreferenceAdmin(HistoryAdmin):
    list_display = ("id", "project", "task_id", "rater", "a_id", "b_id", "outcome", "strength")
    list_select_related = ("project", "rater")
    search_fields = NUMBERS


@admin.register(models.Image)
class ImageAdmin(HistoryAdmin):
    list_display = ("id", "project", "width", "height", "size_bytes", "created_at")
    list_select_related = ("project",)
    search_fields = NUMBERS


@admin.register(models.Group)
class GroupAdmin(HistoryAdmin):
    list_display = ("id", "project", "name", "person", "created_at")
    list_select_related = ("project", "person")
    search_fields = ("name__startswith",)


@admin.register(models.Comment)
class CommentAdmin(HistoryAdmin):
    list_display = ("id", "project", "task_id", "author", "is_flag", "created_at", "resolved_at")
    list_select_related = ("project", "author")
    search_fields = NUMBERS
    keys = ("pk", "task_id")


@admin.register(models.Consensus)
class ConsensusAdmin(HistoryAdmin):
    list_display = ("task_id", "project", "aggregator", "posterior", "votes", "computed_at")
    list_select_related = ("project",)
    search_fields = NUMBERS


@admin.register(models.ReviewItem)
class ReviewItemAdmin(HistoryAdmin):
    list_display = ("id", "project", "task_id", "reason", "severity", "decision", "closed_at")
    list_select_related = ("project",)
    search_fields = NUMBERS
    keys = ("pk", "task_id")


@admin.register(models.QualityReport)
class QualityReportAdmin(HistoryAdmin):
    list_display = ("id", "project", "run_id", "created_at")
    list_select_related = ("project",)
    search_fields = NUMBERS
    keys = ("pk", "run_id")

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        # The list shows no figures; a page of them would be megabytes.
        one = request.resolver_match and request.resolver_match.kwargs.get("object_id")
        rows = super().get_queryset(request)
        return rows if one else rows.defer("figures")


@admin.register(models.Run)
class RunAdmin(TableAdmin):
    list_display = ("id", "project", "kind", "title", "state", "created_by", "created_at")
    list_select_related = ("project", "created_by")
    search_fields = ("project__slug__startswith",)
    raw_id_fields = ("project", "created_by", "retry_of")
    readonly_fields = (
        "state",
        "attempt",
        "token",
        "worker",
        "log",
        "progress",
        "total",
        "created_at",
        "started_at",
        "heartbeat_at",
        "finished_at",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        rows = super().get_queryset(request)
        # The list shows no logs; a page of them would be megabytes.
        one = request.resolver_match and request.resolver_match.kwargs.get("object_id")
        return rows if one else rows.defer("log", "config", "result")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False


@admin.register(models.RunPoint)
class RunPointAdmin(HistoryAdmin):
    list_display = ("id", "run_id", "kind", "step", "at")
    search_fields = NUMBERS
    keys = ("run_id",)


@admin.register(models.ImportIssue)
class ImportIssueAdmin(HistoryAdmin):
    list_display = ("id", "run_id", "line", "code", "reason")
    search_fields = NUMBERS
    keys = ("run_id",)


@admin.register(models.RewardModel)
class RewardModelAdmin(TableAdmin):
    list_display = ("id", "project", "number", "objective", "backbone", "created_at")
    list_select_related = ("project",)
    raw_id_fields = ("project", "run")
    readonly_fields = ("number", "metrics", "artifact", "created_at")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False


@admin.register(models.Recipe)
class RecipeAdmin(HistoryAdmin):
    list_display = ("id", "project", "name", "created_at")
    list_select_related = ("project",)


@admin.register(models.RecipeVersion)
class RecipeVersionAdmin(HistoryAdmin):
    list_display = ("id", "recipe", "number", "format", "created_at")
    list_select_related = ("recipe",)


@admin.register(models.DatasetVersion)
class DatasetVersionAdmin(HistoryAdmin):
    list_display = ("id", "project", "number", "format", "rows", "downloads", "created_at")
    list_select_related = ("project",)


@admin.register(models.AuditEvent)
class AuditEventAdmin(HistoryAdmin):
    list_display = ("id", "at", "project", "actor", "verb", "subject")
    list_select_related = ("project", "actor")
    search_fields = ("verb__startswith", "actor__email__startswith", "project__slug__startswith")


@admin.register(models.Endpoint)
class EndpointAdmin(TableAdmin):
    """The key is neither shown nor set here: what is read is what its owner may read."""

    list_display = ("id", "project", "name", "base_url", "is_simulated", "created_at")
    list_select_related = ("project",)
    raw_id_fields = ("project",)
    exclude = ("secret",)
    readonly_fields = ("secret_set_at", "created_at")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False


@admin.register(models.Judge)
class JudgeAdmin(HistoryAdmin):
    list_display = ("id", "project", "name", "version", "kind", "model", "created_at")
    list_select_related = ("project",)


@admin.register(models.LlmCall)
class LlmCallAdmin(HistoryAdmin):
    list_display = ("id", "project_id", "model", "tokens_in", "tokens_out", "cost", "created_at")
    search_fields = NUMBERS
    keys = ("project_id", "endpoint_id", "run_id")


@admin.register(models.JudgeAnswer)
class JudgeAnswerAdmin(HistoryAdmin):
    list_display = ("id", "judge_id", "task_id", "model", "error")
    search_fields = NUMBERS
    keys = ("judge_id", "task_id", "run_id")


@admin.register(models.JudgeOutcome)
class JudgeOutcomeAdmin(HistoryAdmin):
    list_display = ("id", "judge_id", "task_id", "confidence", "error", "at")
    search_fields = NUMBERS
    keys = ("judge_id", "task_id", "run_id", "judgment_id")


@admin.register(models.JudgeReport)
class JudgeReportAdmin(HistoryAdmin):
    list_display = ("id", "judge", "created_at")
    list_select_related = ("judge",)


@admin.register(models.Battery)
class BatteryAdmin(HistoryAdmin):
    list_display = ("id", "judge", "limit", "is_passed", "created_at")
    list_select_related = ("judge",)


@admin.register(models.AcceptRule)
class AcceptRuleAdmin(HistoryAdmin):
    list_display = ("id", "judge", "limit", "is_on", "changed_at")
    list_select_related = ("judge",)


@admin.register(models.Acceptance)
class AcceptanceAdmin(HistoryAdmin):
    list_display = ("id", "task_id", "judge_id", "confidence", "is_audit", "accepted_at")
    search_fields = NUMBERS
    keys = ("project_id", "task_id", "judge_id", "judgment_id", "run_id")


@admin.register(models.Rubric)
class RubricAdmin(HistoryAdmin):
    list_display = ("id", "project", "name", "created_at")
    list_select_related = ("project",)


@admin.register(models.RubricVersion)
class RubricVersionAdmin(HistoryAdmin):
    list_display = ("id", "rubric", "number", "state", "method", "created_at")
    list_select_related = ("rubric",)


@admin.register(models.Criterion)
class CriterionAdmin(HistoryAdmin):
    list_display = ("id", "version_id", "position", "decision", "verifier", "weight")
    search_fields = NUMBERS
    keys = ("version_id",)


@admin.register(models.CriterionEvidence)
class CriterionEvidenceAdmin(HistoryAdmin):
    list_display = ("id", "criterion_id", "prompt_id", "supports")
    search_fields = NUMBERS
    keys = ("criterion_id", "prompt_id", "judgment_id")


@admin.register(models.CriterionVerdict)
class CriterionVerdictAdmin(HistoryAdmin):
    list_display = ("id", "criterion_id", "response_id", "rater_id", "value", "probability")
    search_fields = NUMBERS
    keys = ("criterion_id", "response_id", "rater_id")


@admin.register(models.RubricMeasurement)
class RubricMeasurementAdmin(HistoryAdmin):
    list_display = ("id", "version_id", "run_id", "created_at")
    search_fields = NUMBERS
    keys = ("version_id", "run_id")
    exclude = ("sheet",)


@admin.register(models.RewardScore)
class RewardScoreAdmin(HistoryAdmin):
    list_display = ("id", "response_id", "reward_model_id", "rubric_version_id", "mean")
    search_fields = NUMBERS
    keys = ("response_id", "reward_model_id", "rubric_version_id")
