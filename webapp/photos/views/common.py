"""What several pages need: who asks, for which photo, with what allowed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from django.core.files.base import File
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from webapp.accounts.visitors import (
    Visitor,
    new_visitor,
    remember_visitor,
    visitor_of,
)
from webapp.core.rates import address_group, check_rate, check_size, client_address
from webapp.photos.models import Photo
from webapp.photos.selectors import get_photo
from webapp.photos.services.batches import count_photos


def visible_photo(request: HttpRequest, photo_id: uuid.UUID) -> Photo:
    """The photo, where its visitor or a holder of its secret asks; else 404."""
    visitor = visitor_of(request)
    return get_photo(
        photo_id=photo_id,
        visitor_key=visitor.key if visitor else None,
        secret=request.GET.get("secret") or request.POST.get("secret") or "",
    )


def own_photo(request: HttpRequest, photo_id: uuid.UUID) -> Photo:
    """The photo, where its own visitor asks; a secret is not enough."""
    visitor = visitor_of(request)
    return get_photo(photo_id=photo_id, visitor_key=visitor.key if visitor else None)


def await_visitor(request: HttpRequest, response: HttpResponse) -> None:
    """Give the browser its token with the form. With the answer to a photo it may be
    lost on its way, and a photo that is kept then be nobody's to delete."""
    remember_visitor(response, visitor_of(request) or new_visitor())


def new_page() -> str:
    """What the form of a page says that was shown once."""
    return uuid.uuid4().hex


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


def is_htmx(request: HttpRequest) -> bool:
    """Whether htmx asks, for a part of a page (django-htmx's middleware knows)."""
    return bool(getattr(request, "htmx", False))


def see_other(to: str, *args: Any, **kwargs: Any) -> HttpResponse:
    """303: what was posted is done, go and look there."""
    response = HttpResponseRedirect(reverse(to, args=args, kwargs=kwargs))
    response.status_code = 303
    return response
