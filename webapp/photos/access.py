"""The secret and the tokens that open a photo to whoever holds them."""

from __future__ import annotations

import hashlib
import hmac
import uuid

from django.conf import settings


def photo_secret(photo_id: uuid.UUID) -> str:
    """160 bits in hex, derived from the site's secret key: nothing is stored."""
    digest = hmac.new(
        settings.SECRET_KEY.encode(), b"photo:" + photo_id.bytes, hashlib.sha256
    )
    return digest.hexdigest()[:40]


def holds_secret(photo_id: uuid.UUID, secret: str) -> bool:
    """Compares in constant time."""
    return hmac.compare_digest(photo_secret(photo_id).encode(), secret.encode())


def hash_token(token: str) -> str:
    """SHA-256 in hex: a token of 256 random bits needs no salt."""
    return hashlib.sha256(token.encode()).hexdigest()
