from __future__ import annotations

from typing import Any

from axes.models import AccessAttempt, AccessLog
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group
from django.db import transaction
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse

from webapp.accounts import audit
from webapp.accounts.api_keys import take_right_to_train
from webapp.accounts.models import AuditEntry, User
from webapp.accounts.services import withdraw_invitations_of
from webapp.core.admin import ReadOnlyAdmin

# Nothing asks for groups.
admin.site.unregister(Group)


@admin.register(User)
class PersonAdmin(UserAdmin):
    """Django's own, for a name, an address and a forgotten password.

    Who may do what is changed on the page of people alone: there nobody changes
    their own account, and a closed one keeps its votes.
    """

    list_display = ("username", "role", "is_active", "last_login")
    list_filter = ("role", "is_active")
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Person", {"fields": ("first_name", "last_name", "email")}),
        ("Mien", {"fields": ("role", "is_active", "last_login", "date_joined")}),
    )
    readonly_fields = ("role", "is_active", "last_login", "date_joined")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(
        self, request: HttpRequest, obj: object | None = None
    ) -> bool:
        return False

    def save_model(
        self, request: HttpRequest, obj: User, form: ModelForm[User], change: bool
    ) -> None:
        super().save_model(request, obj, form, change)
        _record(
            request,
            "edited an account",
            form.initial["username"],
            fields=form.changed_data,
            name=obj.username,
        )

    @transaction.atomic
    def user_change_password(
        self, request: HttpRequest, id: str, form_url: str = ""
    ) -> HttpResponse:
        return super().user_change_password(request, id, form_url)

    def log_change(self, request: HttpRequest, obj: User, message: Any) -> Any:
        # What is asked after a password was set, too, where no form saves a model.
        if request.resolver_match and request.resolver_match.url_name == (
            "auth_user_password_change"
        ):
            assert isinstance(request.user, User)
            _record(request, "set a password", obj.username)
            # Whoever knew the old one may have made what outlives it.
            take_right_to_train(person=obj, taken_by=request.user)
            withdraw_invitations_of(person=obj, withdrawn_by=request.user)
        return super().log_change(request, obj, message)


def _record(request: HttpRequest, action: str, subject: str, **details: Any) -> None:
    assert isinstance(request.user, User)  # Nobody else comes as far.
    audit.record(actor=request.user, action=action, subject=subject, **details)


@admin.register(AccessLog)
class LogInAdmin(ReadOnlyAdmin):
    list_display = ("attempt_time", "username", "ip_address", "path_info")
    search_fields = ("username", "ip_address")


@admin.register(AccessAttempt)
class FailedLogInAdmin(ReadOnlyAdmin):
    list_display = ("attempt_time", "username", "ip_address", "failures_since_start")
    search_fields = ("username", "ip_address")


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "actor", "action", "subject", "details")
    list_filter = ("action",)
    search_fields = ("actor", "subject")
