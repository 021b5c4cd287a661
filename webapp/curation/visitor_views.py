"""The visitor's side of curation: saying that the model is wrong, and following it."""

from __future__ import annotations

import uuid

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from webapp.accounts.visitors import new_visitor, remember_visitor, visitor_of
from webapp.core.errors import NotFound
from webapp.core.responses import see_other
from webapp.curation.models import Correction
from webapp.curation.receipts import get_receipt, receipt_secret
from webapp.curation.services.flags import retract_flag, submit_flag
from webapp.photos.limits import count_request
from webapp.photos.models import Face, Photo
from webapp.photos.views.common import visible_photo


@require_POST
def flag(request: HttpRequest, photo_id: uuid.UUID, index: int) -> HttpResponse:
    """Say what a face should be; leads to the receipt."""
    photo = visible_photo(request, photo_id)
    visitor = visitor_of(request) or new_visitor()
    count_request(request, "flag", visitor_of(request))
    made = submit_flag(
        face=face_of(photo, index),
        visitor_key=visitor.key,
        verdict=request.POST.get("verdict", ""),
        comment=request.POST.get("comment", ""),
    )
    response = see_other("flags:receipt", made.pk, receipt_secret(made.pk))
    remember_visitor(response, visitor)
    return response


@never_cache
@require_safe
def receipt(request: HttpRequest, flag_id: uuid.UUID, secret: str) -> HttpResponse:
    shown = get_receipt(flag_id=flag_id, secret=secret)
    visitor = visitor_of(request)
    # Whoever came by a secret, or keeps the receipt on another device, would be told
    # that there is no such photo.
    is_own = visitor is not None and visitor.key == shown.photo.visitor_key
    context = {"receipt": shown, "secret": secret, "is_own": is_own}
    return render(request, "curation/receipt.html", context)


@require_POST
def take_back(request: HttpRequest, flag_id: uuid.UUID, secret: str) -> HttpResponse:
    """Whoever holds the receipt may take the flag back."""
    flag: Correction = get_receipt(flag_id=flag_id, secret=secret).flag
    retract_flag(face=flag.face, visitor_key=flag.visitor_key)
    messages.success(request, "Your correction is taken back.")
    return see_other("photos:home")


def face_of(photo: Photo, index: int) -> Face:
    """The photo's face number ``index``, or ``NotFound``."""
    face = Face.objects.filter(photo=photo, index=index).first()
    if face is None:
        raise NotFound("This photo has no such face.")
    return face
