"""What the upload form takes. Whether it is a photo, the intake decides."""

from __future__ import annotations

from django import forms


class PhotoForm(forms.Form):
    image = forms.FileField(
        allow_empty_file=True,
        max_length=None,
        error_messages={"required": "Please choose a photo first."},
    )
