"""What can be wrong with a file of faces, in words, and all that was found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from ml.consensus import MIN_EMOTION_SHARE
from ml.data import CleanedRow, FaceSet, Split

Float64Array = npt.NDArray[np.float64]

Judge = Literal["model", "folds"]
"""``model`` asks the classifier itself: good where it did not learn these faces.
``folds`` fits heads on its features, each face judged by heads that never saw it."""


class Kind(StrEnum):
    """What can be wrong with a file; the value is the word in ``report.json``."""

    UNREADABLE = "unreadable"
    WRONG_FORMAT = "wrong_format"
    FLAT = "flat"
    NO_FACE = "no_face"
    EXACT_DUPLICATE = "exact_duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    CONTRADICTING_DUPLICATE = "contradicting_duplicate"
    SUSPECT_LABEL = "suspect_label"
    VOTES_DISAGREE = "votes_disagree"
    VOTES_ELSEWHERE = "votes_elsewhere"


_EXPLANATIONS: Final[dict[Kind, str]] = {
    Kind.UNREADABLE: "Damaged, empty or too large to be opened. Left out.",
    Kind.WRONG_FORMAT: (
        "Not what the name's ending says, or of a kind that is not read. Left out "
        "where it is no picture that can be read."
    ),
    Kind.FLAT: "Hardly any contrast: nothing can be seen. Left out.",
    Kind.NO_FACE: "No face was found. Left out where people said so, too.",
    Kind.EXACT_DUPLICATE: "The same pixels as another file. One of them is kept.",
    Kind.NEAR_DUPLICATE: (
        "Nearly the same as another file. One is kept; test before validation "
        "before train, within a split one with votes first."
    ),
    Kind.CONTRADICTING_DUPLICATE: (
        "The same face under two labels. Within a split the one that is kept has "
        "both, by halves, or its votes alone where nobody voted on the other; across "
        "splits it keeps its own."
    ),
    Kind.SUSPECT_LABEL: (
        "Nobody voted, and another label is expected. The expected probabilities take "
        "the label's place."
    ),
    Kind.VOTES_DISAGREE: (
        "Most people see another emotion. The shares of their votes take the label's "
        "place."
    ),
    Kind.VOTES_ELSEWHERE: (
        "Most people see none of the four emotions. Left out where fewer than "
        f"{MIN_EMOTION_SHARE:.0%} of the votes fall on them; else the shares of those "
        "that do take the label's place, and the face counts less."
    ),
}

_JUDGED: Final[dict[Judge, str]] = {
    "model": "The model itself judged; of faces that it learned it doubts few labels.",
    "folds": "Each face was judged by a head that was fitted on other faces.",
}
_NOBODY_JUDGED: Final = (
    "Only votes judged: no label was without any, or too few of each emotion were."
)


def explanation(kind: Kind, judge: Judge | None) -> str:
    """What a finding means and what was done; of labels, who judged those without
    votes."""
    said = _EXPLANATIONS[kind]
    if kind is not Kind.SUSPECT_LABEL:
        return said
    return f"{said} {_JUDGED[judge] if judge else _NOBODY_JUDGED}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with one file; ``detail`` says it to a person."""

    file: str
    finding: Kind
    detail: str


@dataclass(slots=True)
class CleaningResult:
    """Findings, and a row for every file. ``suspicion`` (N,) belongs to the rows of
    ``faces``: 1 minus the probability of the file's own label, which ``judge`` said;
    NaN where it said nothing. ``judge`` is None where no label was judged but by votes.
    """

    findings: list[Finding]
    rows: list[CleanedRow]
    faces: FaceSet
    splits: tuple[Split, ...]
    suspicion: Float64Array
    judge: Judge | None

    def counts(self) -> dict[Kind, int]:
        """Files by finding, in the order of ``Kind``."""
        files: dict[Kind, set[str]] = {kind: set() for kind in Kind}
        for finding in self.findings:
            files[finding.finding].add(finding.file)
        return {kind: len(names) for kind, names in files.items()}
