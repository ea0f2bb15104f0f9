"""Addresses of the rubrics of a project."""

from __future__ import annotations

from typing import Final

from django.urls.resolvers import URLPattern

RUBRIC: Final = "rubrics/<int:rubric_id>/"
VERSION: Final = RUBRIC + "v<int:number>/"

rubrics: list[URLPattern] = []
