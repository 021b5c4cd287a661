"""Staff. A visitor has no row: a random cookie is all that is known of them."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser, UserManager
from django.db import models


class Role(models.TextChoices):
    """What a person may do; each includes the ones before it."""

    ANNOTATOR = "annotator"
    ADJUDICATOR = "adjudicator"
    ADMIN = "admin"


class User(AbstractUser):
    """A person with an account, invited by an admin."""

    role = models.CharField(max_length=16, choices=Role, default=Role.ANNOTATOR)

    objects = UserManager()

    class Meta(AbstractUser.Meta):
        constraints = [
            models.CheckConstraint(
                condition=models.Q(role__in=[role.value for role in Role]),
                name="user_role_is_known",
            )
        ]
