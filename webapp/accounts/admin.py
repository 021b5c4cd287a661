from django.contrib import admin
from django.contrib.auth.admin import UserAdmin

from webapp.accounts.models import AuditEntry, User
from webapp.core.admin import ReadOnlyAdmin


@admin.register(User)
class PersonAdmin(UserAdmin):
    """Django's own, with the role."""

    list_display = ("username", "role", "is_active", "last_login")
    list_filter = ("role", "is_active")
    fieldsets = (*(UserAdmin.fieldsets or ()), ("Mien", {"fields": ("role",)}))
    add_fieldsets = (*UserAdmin.add_fieldsets, ("Mien", {"fields": ("role",)}))


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "actor", "action", "subject", "details")
    list_filter = ("action",)
    search_fields = ("actor", "subject")
