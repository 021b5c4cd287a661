"""Wiring only: environment, settings, URLs, the Celery app."""

from webapp.config.celery import app as celery_app

__all__ = ["celery_app"]
