"""Which workers live, what they hold, and how long their lines are."""

from __future__ import annotations

import logging
import time

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET
from redis import RedisError

from annotator.models import Role
from annotator.queries import lines
from annotator.services import workers as service
from annotator.views.helpers import Access, project_page

log = logging.getLogger(__name__)


@project_page(Role.REVIEWER)
@require_GET
def workers(request: HttpRequest, access: Access) -> HttpResponse:
    """Every worker that was heard of in the last day. Runs of other projects are only counted."""
    try:
        known, is_away = service.known(), False
    except RedisError:
        log.warning("workers cannot be looked up: Redis is away", exc_info=True)
        known, is_away = [], True
    held = lines.held_by([one.name for one in known], project=access.project)
    taken = {queue for one in known if not one.is_silent for queue in one.queues}
    context = {
        "access": access,
        "rows": [
            {"said": one, "held": held.get(one.name), "up": time.time() - one.started}
            for one in known
        ],
        "lines": [
            {"line": line, "is_taken": line.queue in taken}
            for line in lines.waiting(access.project)
        ],
        "is_away": is_away,
    }
    return render(request, "runs/workers.html", context)
