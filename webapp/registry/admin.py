from django.contrib import admin
from django.http import HttpRequest

from webapp.registry.models import ModelVersion, Promotion


class ReadOnlyAdmin(admin.ModelAdmin):
    """Rows that only services write."""

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


@admin.register(ModelVersion)
class ModelVersionAdmin(ReadOnlyAdmin):
    list_display = ("version", "is_champion", "created_at", "sha256")


@admin.register(Promotion)
class PromotionAdmin(ReadOnlyAdmin):
    list_display = ("model_version", "previous", "promoted_by", "created_at", "reason")
