"""In which order faces are labelled. Pure functions of what is known of a face.

An order gives each face a priority, higher is sooner; ``CURATION_ORDER`` names the
one in force. What each is worth is measured by ``benchmarks/queue_order.py``.
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

_BY_REASON: Final = {
    # A visitor waits for an answer, and the model was wrong in most of them.
    "flag": 3.0,
    # A sample that is labelled late measures a model that is gone.
    "sample": 2.5,
    "differ": 2.0,
    "suspect": 1.0,
    "unsure": 1.0,
    "manual": 1.0,
}
_STARTED: Final = 10.0
"""A face with a vote comes first: half a decision teaches nothing."""


def uncertainty(probabilities: Sequence[float] | None) -> float:
    """One less the gap between the two best, in [0, 1]; 1 where nothing was read."""
    if probabilities is None:
        return 1.0
    first, second = sorted(probabilities, reverse=True)[:2]
    return 1.0 - (first - second)


def teaches_most(face: Signals) -> float:
    """Begun faces, then by reason; among equals, where the model wavers most."""
    return (
        _STARTED * (face.votes > 0)
        + _BY_REASON[face.reason]
        + 0.25 * min(face.flags, 2)
        + uncertainty(face.probabilities)
    )


def unsure_first(face: Signals) -> float:
    """Begun faces, then where the model wavers most, whatever the reason."""
    return _STARTED * (face.votes > 0) + uncertainty(face.probabilities)


def by_chance(face: Signals) -> float:
    """Begun faces, then any: what other orders are measured against."""
    return _STARTED * (face.votes > 0) + face.chance


ORDERS: Final[dict[str, Order]] = {
    "teaches_most": teaches_most,
    "unsure_first": unsure_first,
    "by_chance": by_chance,
}
