"""Addresses of the rubrics of a project."""

from __future__ import annotations

from typing import Final

from django.urls import path
from django.urls.resolvers import URLPattern

from annotator.views import rubric_files, rubric_gaps, rubric_induce, rubric_try, rubric_use_people
from annotator.views import rubric_use_judge as use_judge
from annotator.views import rubric_use_scores as use_scores
from annotator.views import rubrics as views

RUBRIC: Final = "rubrics/<int:rubric_id>/"
VERSION: Final = RUBRIC + "v<int:number>/"

CRITERION: Final = VERSION + "criteria/<int:criterion_id>/"

rubrics: list[URLPattern] = [
    path("rubrics/", views.rubrics_list, name="rubrics"),
    path(RUBRIC, views.rubric, name="rubric"),
    path(RUBRIC + "archive/", views.archive, name="rubric_archive"),
    path(VERSION, views.version, name="rubric_version"),
    path(VERSION + "change/", views.change, name="rubric_change"),
    path(VERSION + "criteria/", views.add, name="rubric_add"),
    path(CRITERION + "decide/", views.decide, name="rubric_decide"),
    path(CRITERION + "edit/", views.edit, name="rubric_edit"),
    path(CRITERION + "merge/", views.merge, name="rubric_merge"),
    path(VERSION + "against/v<int:other>/", views.compare, name="rubric_compare"),
    path(VERSION + "use/", views.use, name="rubric_use"),
    path("rubrics/induce/", rubric_induce.induce, name="rubric_induce"),
    path("rubrics/import/", rubric_files.import_file, name="rubric_import"),
    path("rubrics/new/", rubric_files.new, name="rubric_new"),
    path(VERSION + "try/", rubric_try.rubric_try, name="rubric_try"),
    path(VERSION + "rubric.json", rubric_files.file, name="rubric_file"),
    path(VERSION + "use/judge/", use_judge.make, name="rubric_use_judge"),
    path(VERSION + "use/people/", rubric_use_people.make, name="rubric_use_people"),
    path(VERSION + "use/scores/", use_scores.scores, name="rubric_use_scores"),
    path(VERSION + "gaps/", rubric_gaps.gaps, name="rubric_gaps"),
    path(VERSION + "gaps/queue/", rubric_gaps.queue, name="rubric_gaps_queue"),
    path(VERSION + "gaps/induce/", rubric_gaps.induce, name="rubric_gaps_induce"),
]
