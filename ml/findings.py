"""What can be wrong with a file of faces, in words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


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


EXPLANATIONS: Final[dict[Kind, str]] = {
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
        "before train."
    ),
    Kind.CONTRADICTING_DUPLICATE: (
        "The same face under two labels. Within a split the one that is kept has "
        "both, by halves; across splits it keeps its own."
    ),
    Kind.SUSPECT_LABEL: (
        "A model that was not fitted on this face expects another label. The model's "
        "probabilities take the label's place."
    ),
    Kind.VOTES_DISAGREE: (
        "Most people see another emotion. The shares of their votes take the label's "
        "place."
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with one file; ``detail`` says it to a person."""

    file: str
    finding: Kind
    detail: str
