"""A new release comes while the old one still runs: its tables must suit both.

What a migration may not do in the release that stops using something, it may in the
next one: then it is named in ``LATER``, with why that is safe.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.apps import apps
from django.db import models
from django.db.migrations import Migration
from django.db.migrations import operations as ops
from django.db.migrations.loader import MigrationLoader

LATER: dict[str, str] = {}
"""``app.migration`` to the reason why no running release can mind."""

_BREAKS_THE_OLD = (
    ops.RemoveField,
    ops.RenameField,
    ops.DeleteModel,
    ops.RenameModel,
    ops.AlterModelTable,
)


def migrations() -> Iterator[tuple[str, Migration]]:
    ours = {
        config.label
        for config in apps.get_app_configs()
        if config.name.startswith("webapp.")
    }
    loader = MigrationLoader(None)
    for (app, name), migration in loader.disk_migrations.items():
        if app in ours:
            yield f"{app}.{name}", migration


ALL = dict(migrations())


@pytest.mark.parametrize("name", sorted(ALL))
def test_release_that_runs_can_live_with_the_new_tables(name: str) -> None:
    if name in LATER:
        return
    created = {
        operation.name_lower
        for operation in ALL[name].operations
        if isinstance(operation, ops.CreateModel)
    }
    for operation in ALL[name].operations:
        assert not isinstance(operation, _BREAKS_THE_OLD), (
            f"{name}: {operation.describe()} breaks the release that still runs. "
            "Stop using it first, and remove it one release later."
        )
        if isinstance(operation, ops.AddField):
            if operation.model_name_lower in created:
                continue
            field = operation.field
            harmless = (
                field.null
                or isinstance(field, models.ManyToManyField)
                or field.db_default is not models.NOT_PROVIDED
            )
            assert harmless, (
                f"{name}: the release that still runs inserts rows without "
                f"{operation.name}: let it be null or give it a db_default."
            )


def test_list_of_exceptions_names_what_is_there() -> None:
    assert set(LATER) <= set(ALL)
