from django.contrib import admin

from webapp.core.admin import ReadOnlyAdmin
from webapp.registry.models import ModelVersion, Promotion


@admin.register(ModelVersion)
class ModelVersionAdmin(ReadOnlyAdmin):
    list_display = ("version", "is_champion", "created_at", "sha256")


@admin.register(Promotion)
class PromotionAdmin(ReadOnlyAdmin):
    list_display = ("model_version", "previous", "promoted_by", "created_at", "reason")
