"""What a visitor is told and asked before giving a photo, by version of the text.

A change of any sentence needs a new ``CONSENT_VERSION``: the version that was
agreed to is kept with each photo. The time alone is a setting of the site.
"""

from __future__ import annotations

from math import ceil
from typing import Final

from django.conf import settings

CONSENT_VERSION: Final = "2026-11-28"

WHAT_IT_IS_NOT: Final = (
    "The model reads what a face looks like, not what a person feels: a smile is not "
    "happiness. It is often wrong, and says so where it is not sure."
)

NOT_FOR: Final = (
    "Not for work, schools or policing: the EU AI Act forbids inferring emotions at "
    "work and in education (article 5), and asks that people are told wherever such a "
    "system is used on them (article 50)."
)

TRAINING: Final = (
    "the people who label here see the photo, its faces train the model, and copies "
    "of the faces may be taken off this site for that"
)
"""What somebody allows who allows training: the rest of a sentence."""

KEEP_QUESTION: Final = "Keep my photo and its result until I delete them."
TRAIN_QUESTION: Final = (
    f"Use the faces in my photo for training: {TRAINING}. I may take this back at any "
    "time, but not for copies taken before."
)


def what_happens() -> tuple[str, ...]:
    return (
        "Your photo is re-encoded at once, and where and when it was taken, the camera "
        "and all other hidden data are dropped.",
        "Only this browser can see it, and whoever you send a link; if you allow "
        "training, also the people who label here.",
        f"It is erased with everything read from it after {retention_words()}, or at "
        "once when you press Delete.",
    )


def with_neither() -> str:
    """What holds where neither question is answered with yes."""
    return (
        f"With neither, the photo is erased after {retention_words()} and trains "
        "nothing."
    )


def retention_words() -> str:
    """How long a photo lives that nobody asked to keep: "24 hours", "7 days"; rounded
    up to minutes where it is no whole number of hours."""
    seconds: int = settings.PHOTO_RETENTION_SECONDS
    for unit, length, least in (("day", 86_400, 2), ("hour", 3600, 1)):
        count, rest = divmod(seconds, length)
        if not rest and count >= least:
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{ceil(seconds / 60)} minutes"
