"""In which order faces are labelled. Pure functions of what is known of a face.

An order gives each face a priority, higher is sooner; ``CURATION_ORDER`` names the
one in force. What each is worth is measured by ``benchmarks/curation_queue_order.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Signals:
    """What an order may look at.

    ``reason`` is why the face came; ``probabilities`` are the serving model's in
    ``EMOTIONS`` order, None where it has read nothing; ``votes`` how many
    annotators have voted; ``flags`` how many visitors said that the model is wrong;
    ``chance`` is a number in [0, 1) that belongs to the face.
    """

    reason: str
    probabilities: Sequence[float] | None
    votes: int
    flags: int
    chance: float


Order = Callable[[Signals], float]

_WAITS_FOR_AN_ANSWER: Final = {"flag", "differ", "sample"}
"""A visitor waits, or a comparison of models does; and a sample that is labelled late
measures a model that is gone."""

_STARTED: Final = 10.0
"""A face with a vote comes first: half a decision teaches nothing."""


def uncertainty(probabilities: Sequence[float] | None) -> float:
    """One less the gap between the two best, in [0, 1]; 1 where nothing was read."""
    if probabilities is None:
        return 1.0
    first, second = sorted(probabilities, reverse=True)[:2]
    return 1.0 - (first - second)


def teaches_most(face: Signals) -> float:
    """Begun faces, then where the model wavers most; of faces alike in that, what
    somebody waits for."""
    return (
        _STARTED * (face.votes > 0)
        + uncertainty(face.probabilities)
        + 0.1 * (face.reason in _WAITS_FOR_AN_ANSWER)
    )


def flags_first(face: Signals) -> float:
    """Begun faces, then flagged ones, the most flagged first; then by doubt.

    Visitors get their answer sooner, and the model learns a little less."""
    return (
        _STARTED * (face.votes > 0)
        + 2.0 * min(face.flags, 3)
        + uncertainty(face.probabilities)
    )


def by_chance(face: Signals) -> float:
    """Begun faces, then any: what other orders are measured against."""
    return _STARTED * (face.votes > 0) + face.chance


ORDERS: Final[dict[str, Order]] = {
    "teaches_most": teaches_most,
    "flags_first": flags_first,
    "by_chance": by_chance,
}
