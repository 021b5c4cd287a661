from __future__ import annotations

from datetime import timedelta

import factory
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.utils import timezone

from tests.pictures import astronaut, encode
from webapp.photos.models import Photo
from webapp.photos.services.intake import new_file_name


def stored_astronaut() -> str:
    """A stored photo with one face; its file name."""
    name = new_file_name()
    return default_storage.save(name, ContentFile(encode(astronaut())))


class PhotoFactory(factory.django.DjangoModelFactory):
    """A queued photo whose file is there."""

    class Meta:
        model = Photo

    visitor_key = factory.Sequence(lambda number: f"{number:064x}")
    file_name = factory.LazyFunction(stored_astronaut)
    width_px = 512
    height_px = 512
    queued_at = factory.LazyFunction(timezone.now)
    expires_at = factory.LazyFunction(lambda: timezone.now() + timedelta(hours=24))
    upload_sha256 = "0" * 64
