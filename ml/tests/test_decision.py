from __future__ import annotations

import numpy as np
import pytest

from ml.consensus import NO_LABEL, VERDICTS, decide, weigh_votes


def tally(**votes: int) -> list[int]:
    return [votes.get(verdict, 0) for verdict in VERDICTS]


@pytest.mark.parametrize(
    ("votes", "state", "verdict", "people"),
    [
        ({}, "open", None, 2),
        ({"happy": 1}, "open", None, 2),
        ({"happy": 2}, "decided", "happy", 2),
        ({"not_a_face": 2}, "decided", "not_a_face", 2),
        ({"happy": 1, "sad": 1}, "open", None, 3),
        ({"happy": 1, "sad": 2}, "decided", "sad", 3),
        ({"happy": 1, "sad": 1, "unclear": 1}, "disputed", None, 3),
        ({"happy": 2, "sad": 2}, "disputed", None, 4),
        ({"happy": 2, "sad": 1, "neutral": 1}, "disputed", None, 4),
        ({"happy": 6, "sad": 4}, "decided", "happy", 10),
    ],
)
def test_two_that_agree_decide_and_a_third_breaks_the_tie(
    votes: dict[str, int], state: str, verdict: str | None, people: int
) -> None:
    decision = decide(tally(**votes))

    assert decision.state == state
    assert decision.verdict == verdict
    assert decision.people_needed == people


@pytest.mark.parametrize("wrong", [[1, 2], [0, 0, 0, 0, 0, -1]])
def test_a_tally_that_is_none_is_refused(wrong: list[int]) -> None:
    with pytest.raises(ValueError, match="expected 6 counts"):
        decide(wrong)


def crowd(people: int = 6, faces: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Three votes a face; the first person answers at random, the others are right
    four times in five."""
    generator = np.random.default_rng(3)
    truth = generator.integers(0, 4, faces)
    votes = np.full((faces, people), NO_LABEL)
    for face in range(faces):
        for person in generator.choice(people, 3, replace=False):
            right = generator.random() < (0.25 if person == 0 else 0.8)
            votes[face, person] = truth[face] if right else generator.integers(0, 4)
    return truth, votes


def test_weighed_votes_find_the_bad_annotator_and_beat_the_majority() -> None:
    truth, votes = crowd()
    probabilities = np.full((len(truth), 4), 0.15)
    probabilities[np.arange(len(truth)), truth] = 0.55

    weighed = weigh_votes(votes, probabilities)

    majority = [
        np.bincount(row[row != NO_LABEL], minlength=6).argmax() for row in votes
    ]
    assert (weighed.verdicts == truth).mean() > (np.array(majority) == truth).mean()
    assert weighed.reliability.argmin() == 0
    assert weighed.quality.shape == truth.shape
    assert weighed.quality.min() >= 0
    assert weighed.quality.max() <= 1


def test_votes_can_be_weighed_without_a_model() -> None:
    truth, votes = crowd()

    assert (weigh_votes(votes, None).verdicts == truth).mean() > 0.8


def test_one_verdict_throughout_needs_no_weighing() -> None:
    weighed = weigh_votes(np.full((4, 3), 5), None)

    assert (weighed.verdicts == 5).all()
    assert weighed.quality.min() > 0.5


def test_face_without_a_vote_cannot_be_weighed() -> None:
    with pytest.raises(ValueError, match="needs a vote"):
        weigh_votes(np.full((2, 2), NO_LABEL), None)
