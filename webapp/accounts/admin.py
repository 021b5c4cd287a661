from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.http import HttpRequest

from webapp.accounts.models import AuditEntry, User


@admin.register(User)
class PersonAdmin(UserAdmin):
    """Django's own, with the role."""

    list_display = ("username", "role", "is_active", "last_login")
    list_filter = ("role", "is_active")
    fieldsets = (*(UserAdmin.fieldsets or ()), ("Mien", {"fields": ("role",)}))
    add_fieldsets = (*UserAdmin.add_fieldsets, ("Mien", {"fields": ("role",)}))


@admin.register(AuditEntry)
class AuditEntryAdmin(admin.ModelAdmin):
    """To read and to search; nobody changes it."""

    list_display = ("created_at", "actor", "action", "subject", "details")
    list_filter = ("action",)
    search_fields = ("actor", "subject")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(
        self, request: HttpRequest, obj: object | None = None
    ) -> bool:
        return False

    def has_delete_permission(
        self, request: HttpRequest, obj: object | None = None
    ) -> bool:
        return False
