"""How much one visitor may ask for, of pages and the API alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from django.core.files.base import File
from django.http import HttpRequest

from webapp.accounts.visitors import Visitor
from webapp.core.rates import address_group, check_rate, check_size, client_address
from webapp.photos.services.batches import count_photos


def count_request(
    request: HttpRequest, scope: str, visitor: Visitor | None, cost: int = 1
) -> None:
    """Count against browser and address, or against an API key alone: behind one
    address may be many programs. Raises ``RateLimited``."""

    def identities() -> Iterator[str]:
        if visitor is not None:
            yield f"visitor:{visitor.key}"
            if not visitor.is_browser:
                return
        yield f"address:{address_group(client_address(request))}"

    check_rate(scope=scope, identities=list(identities()), cost=cost)


def count_uploads(
    request: HttpRequest, visitor: Visitor | None, files: Sequence[File[bytes]]
) -> None:
    """Count each photo, also those in a zip; the files first, so that nobody who has
    sent too much has a zip opened. Raises ``RateLimited``, ``MoreThanRate`` or
    ``TooManyPhotos``."""
    count_request(request, "upload", visitor, cost=len(files))
    photos = count_photos(files)
    check_size(scope="upload", cost=photos)
    in_zips = photos - len(files)
    if in_zips:
        count_request(request, "upload", visitor, cost=in_zips)
