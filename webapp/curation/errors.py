"""What curation refuses, in words for the person who asked."""

from __future__ import annotations

from webapp.core.errors import Conflict, DomainError, NotFound


class ClaimLost(NotFound):
    """The lease ran out and somebody else has the face, or it was deleted. Another
    person's claim looks the same."""

    code = "claim_lost"

    def __init__(self) -> None:
        super().__init__(
            "This face is not yours any more: it was given to somebody else after ten "
            "minutes, or its owner took it back. Please go on with the next one."
        )


class Paused(DomainError):
    """Labels of this person are not wanted for now."""

    code = "paused"
    http_status = 403


class NothingToUndo(Conflict):
    code = "nothing_to_undo"
