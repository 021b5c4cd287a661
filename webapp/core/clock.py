"""Time by the database's clock, the same to all hosts.

What lies further ahead than anybody sets it was set before that clock went back, and
counts as past.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Now

CLOCK_SLACK_SECONDS: Final = 1.0
"""So much further ahead than it was set nothing lies by a clock that goes right."""


def in_seconds(seconds: float) -> CombinedExpression:
    """So long after now, or before it, for queries and updates."""
    return Now() + timedelta(seconds=seconds)
