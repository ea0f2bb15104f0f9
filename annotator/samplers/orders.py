"""The named orders: each gives the place of a task in the queue, as SQL over its row ``t``.

A place is a bigint, the smallest first; ties fall to the task's id. Ids grow in the order of
import, so that order is never lost. ``services.queue.reorder`` writes the places, chunk by chunk,
and may do so again at any time: each is a function of what the database holds, so writing it
twice changes nothing. Golds keep theirs.
"""

from __future__ import annotations

from typing import Final

# A round of places: more than there will ever be tasks.
STRIDE: Final = 2**40
SHARES: Final = 1000  # steps in which agreement is told apart


def sequential() -> str:
    """In the order of import."""
    return "t.id"


def at_random() -> str:
    """Drawn once from the task's id, the same for everybody, also for tasks still to come."""
    return "('x' || substr(md5('touchstone order:' || t.project_id || ':' || t.id), 1, 15))::bit(60)::bigint"


def fewest_votes_first() -> str:
    """A round further back with every place that is taken, by a judgment or a lease.

    The queue moves a task on with each place taken and back with each given back, so that this
    order stays exact between two writings.
    """
    return f"t.id + {STRIDE} * (t.overlap - t.free)"


def least_agreed_first() -> str:
    """By the share of agreeing pairs of raters, as the last quality run found it.

    First the tasks in dispute, the most disputed first; then those with fewer than two
    judgments, about which nothing is known; last those on which everybody agrees.
    """
    return f"""
        t.id + {STRIDE} * coalesce(
            (SELECT CASE WHEN c.agreement < 1 THEN floor(c.agreement * {SHARES})
                         WHEN c.agreement >= 1 THEN {SHARES + 1} END
             FROM annotator_consensus c WHERE c.task_id = t.id), {SHARES})::bigint
    """
