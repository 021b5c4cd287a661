"""Staff. A visitor has no row: a random cookie is all that is known of them."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth.models import AbstractUser, UserManager
from django.core.exceptions import ValidationError
from django.db import models

from webapp.core.models import TimedModel


class Role(models.TextChoices):
    """What a person may do; each includes the ones before it."""

    ANNOTATOR = "annotator"
    ADJUDICATOR = "adjudicator"
    ADMIN = "admin"


class PersonManager(UserManager["User"]):
    def create_superuser(
        self,
        username: str,
        email: str | None = None,
        password: str | None = None,
        **extra_fields: Any,
    ) -> User:
        """Who may do everything is called so: ``createsuperuser`` asks for no role."""
        extra_fields.setdefault("role", Role.ADMIN)
        return super().create_superuser(username, email, password, **extra_fields)


class User(AbstractUser):
    """A person with an account, invited by an admin."""

    role = models.CharField(max_length=16, choices=Role, default=Role.ANNOTATOR)

    objects: ClassVar[PersonManager] = PersonManager()

    class Meta(AbstractUser.Meta):
        constraints = [
            models.CheckConstraint(
                condition=models.Q(role__in=[role.value for role in Role]),
                name="user_role_is_known",
            )
        ]

    def clean(self) -> None:
        """A new name for an account must not read like another's; old ones stay."""
        super().clean()
        if self.username and not self.username.strip("."):
            # No address of a page can hold it.
            raise ValidationError({"username": "A name needs more than dots."})
        stands = User.objects.filter(pk=self.pk, username=self.username).exists()
        if not self._state.adding and not stands and self.name_is_taken():
            raise ValidationError(
                {"username": f"The name {self.username} is taken, in whatever case."}
            )

    def name_is_taken(self) -> bool:
        """Whether somebody else has it, in whatever case its letters are."""
        names = User.objects.exclude(pk=self.pk).values_list("username", flat=True)
        # Not by the database: SQLite knows the case of ASCII alone.
        return self.username.casefold() in {name.casefold() for name in names}


class Invitation(TimedModel):
    """A link that makes one account, once, until ``expires_at``.

    Only the hash of the link's secret is kept. ``note`` tells the admin whom it is
    for.
    """

    role = models.CharField(max_length=16, choices=Role)
    note = models.CharField(max_length=120, blank=True, default="")
    secret_hash = models.CharField(max_length=64, unique=True)
    expires_at = models.DateTimeField()
    invited_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    used_at = models.DateTimeField(null=True)
    accepted_by = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        null=True,
        on_delete=models.SET_NULL,
        related_name="invitation",
    )

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(role__in=[role.value for role in Role]),
                name="invitation_role_is_known",
            ),
            models.CheckConstraint(
                condition=models.Q(accepted_by__isnull=True)
                | models.Q(used_at__isnull=False),
                name="invitation_accepted_is_used",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.role} {self.note}".strip()


class ApiKey(TimedModel):
    """What lets a program of a person's own use the API as a visitor of its own.

    Of the key only its SHA-256 is kept, and its first characters, to tell it from
    others. ``visitor_key`` owns the photos that come with it. ``may_train`` lets it
    do over the training API what its person may, for as long as that is an admin. A
    key without a person counts as revoked. Rows stay, so that the photos of a revoked
    key can be found.
    """

    person = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        on_delete=models.SET_NULL,
        related_name="api_keys",
    )
    name = models.CharField(max_length=60)
    key_sha256 = models.CharField(max_length=64, unique=True)
    hint = models.CharField(max_length=12)
    visitor_key = models.CharField(max_length=64, unique=True)
    may_train = models.BooleanField(default=False, db_default=False)
    last_used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["person", "name"],
                condition=models.Q(revoked_at__isnull=True),
                name="one_open_api_key_per_name",
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.hint}…)"


class AuditEntry(TimedModel):
    """One thing that a person with rights did: see ``audit``. Append-only: a trigger
    in the database refuses every UPDATE, on PostgreSQL every DELETE, too."""

    actor = models.CharField(max_length=150, blank=True, default="")
    action = models.CharField(max_length=60)
    subject = models.CharField(max_length=200)
    details = models.JSONField(default=dict)

    class Meta:
        ordering = ["-created_at"]
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.actor} {self.action} {self.subject}".strip()
