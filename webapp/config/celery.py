"""The Celery app. What its settings are for stands in ``settings``."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import before_task_publish, task_postrun, task_prerun
from django.db import close_old_connections

from webapp.config import messages
from webapp.core.logs import job_id, request_id

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.config.settings")

messages.install()
app = Celery("mien")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

REQUEST_ID = "mien_request_id"


@before_task_publish.connect
def carry_request_id(headers: dict[str, Any] | None = None, **_: Any) -> None:
    """The job's lines can be found by the request that asked for it."""
    if headers is not None and request_id.get():
        headers[REQUEST_ID] = request_id.get()


@task_prerun.connect
def name_job(task_id: str, task: Any, **_: Any) -> None:
    job_id.set(task_id)
    request_id.set(str((task.request.headers or {}).get(REQUEST_ID, "")))


@task_prerun.connect
def drop_stale_connections(task: Any, **_: Any) -> None:
    """They live through many jobs; one that is too old or broken does not."""
    if not task.request.is_eager:
        close_old_connections()


@task_postrun.connect
def forget_job(**_: Any) -> None:
    job_id.set("")
    request_id.set("")
