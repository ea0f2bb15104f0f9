"""Every address of the product. A verb in the address is the same verb in view and service."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path, re_path
from django.views.generic import RedirectView

from annotator.api import api, nothing_here
from annotator.views import (
    accounts,
    annotate,
    datasets,
    images,
    imports,
    members,
    my_work,
    overview,
    projects,
    quality,
    remarks,
    review,
    rewards,
    runs,
)

project = [
    path("", overview.overview, name="overview"),
    path("settings/", projects.settings, name="settings"),
    path("archive/", projects.archive, name="project_archive"),
    path("members/", members.members, name="members"),
    path("members/<int:membership_id>/", members.change, name="member_change"),
    path("members/invite/", members.invite, name="invite"),
    path("members/invitations/<int:invitation_id>/revoke/", members.revoke, name="invite_revoke"),
    path("annotate/", annotate.annotate, name="annotate"),
    path("annotate/undo/", annotate.undo, name="undo"),
    path("annotate/<int:assignment_id>/", annotate.answer, name="answer"),
    path("annotate/<int:assignment_id>/skip/", annotate.skip, name="skip"),
    path("annotate/<int:assignment_id>/draft/", annotate.draft, name="draft"),
    path("annotate/<int:assignment_id>/reopen/", annotate.reopen, name="reopen"),
    path("annotate/<int:assignment_id>/remark/", remarks.remark, name="remark"),
    path("judgments/", my_work.my_judgments, name="history"),
    path("review/", review.queue, name="review"),
    path("review/<int:item_id>/", review.item, name="review_item"),
    path("tasks/<int:task_id>/", review.task, name="task"),
    path("tasks/<int:task_id>/decide/", review.decide, name="task_decide"),
    path("tasks/<int:task_id>/comment/", review.comment, name="task_comment"),
    path("raters/<int:rater_id>/judgments/", review.rater_judgments, name="rater_judgments"),
    path("images/<int:image_id>/<str:size>", images.image, name="image"),
    path("imports/", imports.imports, name="imports"),
    path("imports/new/", imports.new, name="import_new"),
    path("imports/<int:run_id>/bad-rows.csv", imports.bad_rows, name="import_bad_rows"),
    path("imports/<int:run_id>/undo/", imports.undo, name="import_undo"),
    path("runs/", runs.runs, name="runs"),
    path("runs/<int:run_id>/", runs.run, name="run"),
    path("runs/<int:run_id>/log.txt", runs.log, name="run_log"),
    path("runs/<int:run_id>/cancel/", runs.cancel, name="run_cancel"),
    path("runs/<int:run_id>/resume/", runs.resume, name="run_resume"),
    path("runs/<int:run_id>/retry/", runs.retry, name="run_retry"),
    path("raters/", quality.raters, name="raters"),
    path("raters/<int:rater_id>/<slug:action>/", quality.rater, name="rater_change"),
    path("agreement/", quality.agreement, name="quality"),
    path("agreement/measure/", quality.measure, name="quality_measure"),
    path("reward-models/", rewards.reward_models, name="reward_models"),
    path("reward-models/train/", rewards.train, name="train"),
    path("reward-models/<int:number>/", rewards.reward_model, name="reward_model"),
    path(
        "reward-models/<int:number>/artifact.zip",
        rewards.artifact,
        name="reward_model_artifact",
    ),
    path("datasets/", datasets.datasets, name="datasets"),
    path("datasets/export/", datasets.export, name="export"),
    path("datasets/<int:number>/", datasets.dataset, name="dataset"),
    path("datasets/<int:number>/files/<str:name>", datasets.download, name="dataset_download"),
]

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="projects"), name="home"),
    path("projects/", projects.projects, name="projects"),
    path("projects/new/", projects.new, name="project_new"),
    path("invitations/<str:token>/", members.invitation, name="invitation"),
    path("preferences/", accounts.preferences, name="preferences"),
    path("preferences/tokens/", accounts.tokens, name="tokens"),
    path("preferences/tokens/<int:token_id>/revoke/", accounts.revoke_token, name="token_revoke"),
    path("p/<slug:slug>/", include(project)),
    path("api/v1/", api.urls),
    re_path(r"^api/v1/", nothing_here),
    path("accounts/", include("allauth.urls")),
    path("operator/", admin.site.urls),
]
