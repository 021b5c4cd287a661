"""What the upload form takes. Whether it is a photo, the intake decides."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile

from webapp.photos.services.batches import MAX_PHOTOS


class FilesInput(forms.ClearableFileInput):
    allow_multiple_selected = True


class FilesField(forms.FileField):
    """One file or several; cleans to a list."""

    widget = FilesInput

    def clean(self, data: Any, initial: Any = None) -> list[UploadedFile]:
        chosen = [file for file in data or [] if file is not None]
        if not chosen:
            raise ValidationError("Please choose a photo first.")
        if len(chosen) > MAX_PHOTOS:
            raise ValidationError(
                f"Those are more than {MAX_PHOTOS} photos. Please send fewer."
            )
        return [super(FilesField, self).clean(file, initial) for file in chosen]


class TickedBox(forms.CheckboxInput):
    """Ticked by what says so. Django's takes any word for a yes, "0" and "no" too:
    nobody has allowed anything by these."""

    def value_from_datadict(self, data: Any, files: Any, name: str) -> bool:
        return str(data.get(name, "")).lower() in ("1", "on", "true")


class PhotoForm(forms.Form):
    image = FilesField(allow_empty_file=True, max_length=None)
    keep = forms.BooleanField(required=False, widget=TickedBox)
    train = forms.BooleanField(required=False, widget=TickedBox)
    page = forms.CharField(required=False, max_length=64)

    @property
    def error_sentence(self) -> str:
        """The first thing that is wrong."""
        return str(next(iter(self.errors.values()))[0])
