from __future__ import annotations

import hashlib

import pytest
from django.conf import LazySettings

from webapp.photos import consent
from webapp.photos.selectors import percent_words


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        (0.0, "< 1 %"),
        (0.0049, "< 1 %"),
        (0.006, "1 %"),
        (0.934, "93 %"),
        (0.994, "99 %"),
        (0.996, "> 99 %"),
        (1.0, "> 99 %"),
    ],
)
def test_nothing_is_certain_and_nothing_impossible(
    probability: float, words: str
) -> None:
    assert percent_words(probability) == words


AGREED_TO = {
    "2026-11": "d55dfaadac3425f8144a3fece0f68dde117f0d2cbc83a103c6aaafb8791b88a3",
    "2026-11-28": "525def7611c83c077be963ac25cb27fa2420d4df6609f715a3833bd87e70616a",
}
"""What each version of the text says, by its hash. Photos that are kept name their
version for good: a new text gets a new line here, and no line is ever changed."""


def test_changed_text_has_a_new_version(settings: LazySettings) -> None:
    settings.PHOTO_RETENTION_SECONDS = 24 * 3600
    text = "\n".join(
        (
            *consent.what_happens(),
            consent.WHAT_IT_IS_NOT,
            consent.NOT_FOR,
            consent.KEEP_QUESTION,
            consent.TRAIN_QUESTION,
            consent.with_neither(),
        )
    )

    assert (
        AGREED_TO[consent.CONSENT_VERSION] == hashlib.sha256(text.encode()).hexdigest()
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (3600, "1 hour"),
        (5400, "90 minutes"),
        (5401, "91 minutes"),
        (24 * 3600, "24 hours"),
        (36 * 3600, "36 hours"),
        (7 * 24 * 3600, "7 days"),
    ],
)
def test_words_say_the_time_that_is_set(
    settings: LazySettings, seconds: int, words: str
) -> None:
    settings.PHOTO_RETENTION_SECONDS = seconds

    assert consent.retention_words() == words
    assert words in " ".join(consent.what_happens())
    assert words in consent.with_neither()
