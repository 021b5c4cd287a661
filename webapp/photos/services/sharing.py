"""Links that show a photo to somebody else: secret, ending, revocable."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Final

from django.db import transaction
from django.utils import timezone

from webapp.core.errors import Conflict
from webapp.photos.access import hash_token
from webapp.photos.models import Photo, ShareLink
from webapp.photos.selectors import open_links_to
from webapp.photos.services.erasure import lock_photo

SHARE_DAYS: Final = 7
MAX_LINKS: Final = 20


def create_share_link(*, photo: Photo) -> tuple[ShareLink, str]:
    """A new link and its token, which is shown once and never stored.

    Raises ``Conflict`` where a photo has ``MAX_LINKS`` that still open it, and
    ``NotFound`` where it was deleted meanwhile.
    """
    token = secrets.token_urlsafe(32)
    with transaction.atomic():
        locked = lock_photo(photo_id=photo.pk)
        if open_links_to(photo=locked).count() >= MAX_LINKS:
            raise Conflict(
                f"This photo has {MAX_LINKS} links already. Please revoke one first."
            )
        link = ShareLink.objects.create(
            photo=locked,
            token_sha256=hash_token(token),
            expires_at=timezone.now() + timedelta(days=SHARE_DAYS),
        )
    return link, token


def revoke_share_links(*, photo: Photo) -> int:
    """End every link to a photo at once; how many there were."""
    count, _ = photo.links.all().delete()
    return count
