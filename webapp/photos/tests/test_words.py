from __future__ import annotations

import pytest

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
