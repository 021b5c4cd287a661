"""What the beat asks for. May run twice and be killed anywhere."""

from __future__ import annotations

from celery import shared_task

from webapp.operations import hours, presence


@shared_task
def summarise_hours() -> None:
    hours.summarise_hours()
    presence.forget_absent()
