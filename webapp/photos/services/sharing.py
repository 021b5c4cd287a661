"""Links that show a photo to somebody else: secret, ending, revocable."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Final

from django.utils import timezone

from webapp.core.errors import Conflict
from webapp.photos.access import hash_token
from webapp.photos.models import Photo, ShareLink

SHARE_DAYS: Final = 7
MAX_LINKS: Final = 20


def create_share_link(*, photo: Photo) -> tuple[ShareLink, str]:
    """A new link and its token, which is shown once and never stored.

    Raises ``Conflict`` where a photo has ``MAX_LINKS`` that still open it.
    """
    now = timezone.now()
    if photo.links.filter(expires_at__gt=now).count() >= MAX_LINKS:
        raise Conflict(
            f"This photo has {MAX_LINKS} links already. Please revoke one first."
        )
    token = secrets.token_urlsafe(32)
    link = ShareLink.objects.create(
        photo=photo,
        token_sha256=hash_token(token),
        expires_at=now + timedelta(days=SHARE_DAYS),
    )
    return link, token


def revoke_share_links(*, photo: Photo) -> int:
    """End every link to a photo at once; how many there were."""
    count, _ = photo.links.all().delete()
    return count
