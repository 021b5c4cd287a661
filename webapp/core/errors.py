"""Errors that a service raises and that a page or an API answer puts into words."""

from __future__ import annotations


class DomainError(Exception):
    """A rule of the product was broken.

    ``str()`` is a sentence for a person that says what to do; ``code`` is stable,
    for programs; ``http_status`` is what a view answers, with ``Retry-After`` where
    trying again later may help.
    """

    code = "invalid"
    http_status = 400
    retry_after_seconds: int | None = None

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class NotFound(DomainError):
    """It does not exist, or the asker may not know that it does."""

    code = "not_found"
    http_status = 404


class NotAllowed(DomainError):
    """Somebody else may do that."""

    code = "permission_denied"
    http_status = 403


class Conflict(DomainError):
    code = "conflict"
    http_status = 409
