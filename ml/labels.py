"""The emotions and their one order.

Every array, manifest, page and API answer lists the four in this order. A model
file whose manifest lists another order is refused rather than reordered.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Emotion(StrEnum):
    """What a face may show; the value is the word used in files and the API."""

    HAPPY = "happy"
    SAD = "sad"
    SURPRISE = "surprise"
    NEUTRAL = "neutral"

    @property
    def position(self) -> int:
        """Place in every probability vector, 0 to 3."""
        return EMOTIONS.index(self)


EMOTIONS: Final[tuple[Emotion, ...]] = tuple(Emotion)
"""The one order. ``EMOTIONS[i]`` belongs to ``probabilities[i]``."""
