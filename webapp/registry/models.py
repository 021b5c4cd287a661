"""Model files, and the record of which one was champion when."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from ml.manifest import body_sha256
from webapp.core.models import TimedModel


class ModelVersion(TimedModel):
    """One ONNX file with its manifest; neither ever changes.

    ``file_name`` names it in the default storage; ``shipped`` says that it came
    with a release of the code.
    """

    version = models.CharField(max_length=80, unique=True)
    sha256 = models.CharField(max_length=64)
    file_name = models.CharField(max_length=200)
    manifest = models.JSONField()
    parent = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="children"
    )
    shipped = models.BooleanField(default=False)
    is_champion = models.BooleanField(default=False)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["is_champion"],
                condition=models.Q(is_champion=True),
                name="one_champion",
            )
        ]

    def __str__(self) -> str:
        return self.version

    @property
    def body_sha256(self) -> str:
        """``ModelManifest.body_sha256``, of a file that is not read for it."""
        return body_sha256(self.manifest.get("training", {}), self.sha256)


class Promotion(TimedModel):
    """Who made which version champion, when, why, from what. Append-only: a
    rollback is another Promotion."""

    model_version = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, related_name="promotions"
    )
    previous = models.ForeignKey(
        ModelVersion, null=True, on_delete=models.PROTECT, related_name="+"
    )
    promoted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL
    )
    reason = models.TextField()

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.model_version} at {self.created_at:%Y-%m-%d %H:%M}"
