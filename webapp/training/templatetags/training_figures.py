"""Shares, changes and intervals in the words of the pages."""

from __future__ import annotations

import json
from typing import Any, Final

from django import template

from ml.labels import EMOTIONS
from webapp.photos.selectors import EMOTION_WORDS
from webapp.training.models import GateOutcome, RunState

register = template.Library()

_UNKNOWN: Final = "not known"

_STATE_WORDS: Final[dict[str, str]] = {
    RunState.QUEUED: "waits for a worker",
    RunState.RUNNING: "under way",
    RunState.DONE: "done",
    RunState.FAILED: "failed",
    RunState.CANCELLED: "cancelled",
}

_OUTCOME_WORDS: Final[dict[str, str]] = {
    GateOutcome.PROMOTE: "Promote",
    GateOutcome.HOLD: "Hold: undecided",
    GateOutcome.REJECT: "Reject",
}


@register.filter
def state_word(state: str) -> str:
    return _STATE_WORDS.get(state, state)


@register.filter
def outcome_word(outcome: str) -> str:
    return _OUTCOME_WORDS.get(outcome, outcome)


@register.filter
def percent(share: float | None) -> str:
    """0.9231 -> ``92.3 %``."""
    return _UNKNOWN if share is None else f"{100 * share:.1f} %"


@register.filter
def points(change: float | None) -> str:
    """0.012 -> ``+1.2 points``."""
    if change is None:
        return _UNKNOWN
    value = round(100 * change, 1)
    return "no change" if value == 0 else f"{value:+.1f} points"


@register.filter
def interval(bounds: list[float] | None) -> str:
    """[0.9, 0.95] -> ``90.0 % to 95.0 %``."""
    if not bounds:
        return _UNKNOWN
    return f"{percent(bounds[0])} to {percent(bounds[1])}"


@register.filter
def points_interval(bounds: list[float] | None) -> str:
    """[-0.01, 0.02] -> ``-1.0 to +2.0 points``."""
    if not bounds:
        return _UNKNOWN
    low, high = (round(100 * bound, 1) + 0.0 for bound in bounds)
    return f"{low:+.1f} to {high:+.1f} points"


@register.filter
def duration(seconds: float | None) -> str:
    """95 -> ``1 min 35 s``."""
    if seconds is None:
        return _UNKNOWN
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@register.filter
def emotion_word(code: str) -> str:
    """``surprise`` -> ``Surprised``."""
    return EMOTION_WORDS.get(code, code)


@register.filter
def top_emotion(probabilities: list[float | None]) -> str:
    """What four probabilities say: the code of the highest; empty for none."""
    known = [value if value is not None else -1.0 for value in probabilities]
    best = max(known, default=-1.0)
    return EMOTIONS[known.index(best)].value if best >= 0 else ""


@register.filter
def top_share(probabilities: list[float | None]) -> str:
    """How sure, as ``93 %``."""
    known = [value for value in probabilities if value is not None]
    return f"{100 * max(known):.0f} %" if known else ""


@register.filter
def short_hash(sha256: str) -> str:
    """The first twelve characters, enough to tell files apart by eye."""
    return sha256[:12]


@register.filter
def pretty_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
