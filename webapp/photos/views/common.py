"""What several pages need: who asks, and for which photo."""

from __future__ import annotations

import uuid

from django.http import HttpRequest, HttpResponse

from webapp.accounts.visitors import new_visitor, remember_visitor, visitor_of
from webapp.core.responses import is_htmx
from webapp.photos.models import Photo
from webapp.photos.selectors import get_photo


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


def renew_visitor(request: HttpRequest, response: HttpResponse) -> None:
    """Let the token that a browser has live on: who keeps photos and only ever looks at
    them would lose them when it ends. Whoever has none gets none."""
    visitor = visitor_of(request)
    # What htmx asks for again and again is part of a page that has done so.
    if visitor is not None and not is_htmx(request):
        remember_visitor(response, visitor)


def new_page() -> str:
    """What the form of a page says that was shown once."""
    return uuid.uuid4().hex
