"""What a finished training run shows of its model."""

from __future__ import annotations

from dataclasses import dataclass

from django import template

from annotator.charts import MiniInterval
from annotator.models import Run
from annotator.queries.rewards import Measured, measured
from annotator.views import reward_charts

register = template.Library()


@dataclass(frozen=True)
class Result:
    """Figures of a run's result, drawn on one axis."""

    measured: Measured
    accuracy: MiniInterval | None
    longer: MiniInterval | None


@register.simple_tag
def training_result(run: Run) -> Result:
    """The figures in ``run.result``; no statement is sent."""
    found = measured(run.result)
    domain = reward_charts.domain_of(found.known)
    return Result(
        found,
        reward_charts.mini(found.accuracy, found, domain=domain),
        reward_charts.mini(found.longer, found, domain=domain, style=0),
    )
