"""The base of all rows."""

from __future__ import annotations

import uuid

from django.db import models


class TimedModel(models.Model):
    """A row with a random id that tells nothing, and its moment of birth."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        abstract = True
