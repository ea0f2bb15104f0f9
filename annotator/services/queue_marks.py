"""Low-water marks and the locks around them. The rules are in ``services.queue``."""

from __future__ import annotations

from typing import Any

from django.db import connection, transaction

from annotator.models import Rater


def lock_raters(project_id: int) -> None:
    """Lock every person's row, by id: bulk updates of them must not meet in two orders."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM annotator_rater WHERE project_id = %s AND kind = 'human'"
            " ORDER BY id FOR NO KEY UPDATE",
            [project_id],
        )


def lock_tasks(cursor: Any, ids: list[int], *, how: str = "NO KEY UPDATE") -> None:
    """Lock tasks in the order in which everybody locks them."""
    cursor.execute(f"SELECT FROM annotator_task WHERE id = ANY(%s) ORDER BY id FOR {how}", [ids])


@transaction.atomic
def reset_marks(*, project_id: int, raters: list[int] | None = None) -> None:
    """Forget low-water marks: after an import, or when order, overlap or groups changed.

    Of some raters, or of all of the project; also of those without one: see
    ``give_back_places``.
    """
    lock_raters(project_id)
    whose = Rater.objects.filter(project_id=project_id, kind=Rater.Kind.HUMAN)
    if raters is not None:
        whose = whose.filter(pk__in=raters)
    whose.update(mark_priority=None, mark_position=None, mark_task_id=None, claims_since_mark=0)
