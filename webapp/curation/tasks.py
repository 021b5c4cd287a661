"""What workers do for curation. Every task may run twice and be killed anywhere."""

from __future__ import annotations

import uuid

from celery import shared_task

from webapp.curation.services import consensus, imports, priority, queue


@shared_task
def fill_queue() -> None:
    queue.fill_queue()


@shared_task(soft_time_limit=270, time_limit=290)
def reorder_queue() -> None:
    priority.reorder_queue()


@shared_task
def weigh_people() -> None:
    consensus.weigh_people()


@shared_task(soft_time_limit=86_000, time_limit=86_400)
def import_dataset(import_id: str) -> None:
    row = imports.claim_dataset_import(import_id=uuid.UUID(import_id))
    if row is not None:
        imports.run_dataset_import(dataset_import=row)


@shared_task
def sweep_dataset_imports() -> None:
    imports.sweep_dataset_imports()
