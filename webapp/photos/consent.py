"""What a visitor is told and asked before giving a photo, by version of the text.

A change of any sentence needs a new ``CONSENT_VERSION``: the version that was
agreed to is kept with each photo.
"""

from __future__ import annotations

from typing import Final

CONSENT_VERSION: Final = "2026-11"

WHAT_HAPPENS: Final = (
    "Your photo is re-encoded at once, and where and when it was taken, the camera "
    "and all other hidden data are dropped.",
    "Only this browser can see it, and whoever you send a link.",
    "It is erased with everything read from it after 24 hours, or at once when you "
    "press Delete.",
)

WHAT_IT_IS_NOT: Final = (
    "The model reads what a face looks like, not what a person feels: a smile is not "
    "happiness. It is often wrong, and says so where it is not sure."
)

NOT_FOR: Final = (
    "Not for work, schools or policing: the EU AI Act forbids inferring emotions at "
    "work and in education (article 5), and asks that people are told wherever such a "
    "system is used on them (article 50)."
)

KEEP_QUESTION: Final = "Keep my photo and its result until I delete them."
TRAIN_QUESTION: Final = (
    "Use the faces in my photo to train the model. I may take this back at any time."
)
