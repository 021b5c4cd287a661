"""A new release comes while the old one still runs: its tables must suit both.

What a migration may not do in the release that stops using something, it may in the
next one: then it is named in ``LATER``, with why that is safe. So is one that tells the
database in SQL what cannot be read here. ``RunPython`` may change rows alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from django.apps import apps
from django.db import models
from django.db.migrations import Migration, RunSQL, SeparateDatabaseAndState
from django.db.migrations import operations as ops
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

LATER: dict[str, str] = {}
"""``app.migration`` to the reason why no running release can mind."""

_BREAKS_THE_OLD = (
    ops.RemoveField,
    ops.RenameField,
    ops.DeleteModel,
    ops.RenameModel,
    ops.AlterModelTable,
    ops.AlterOrderWithRespectTo,
    RunSQL,
)

LOADER = MigrationLoader(None)


def migrations() -> Iterator[tuple[str, Migration]]:
    ours = {
        config.label
        for config in apps.get_app_configs()
        if config.name.startswith("webapp.")
    }
    for (app, name), migration in LOADER.disk_migrations.items():
        if app in ours:
            yield f"{app}.{name}", migration


ALL = dict(migrations())


def complaints(
    app: str, operations: Sequence[Operation], before: ProjectState
) -> list[str]:
    """Why the release that runs cannot live with the tables after the operations;
    ``before`` is the state that they find."""
    state = before.clone()
    existing = {model for label, model in state.models if label == app}
    found = []
    for operation in operations:
        for each in _flat([operation]):
            if said := _complaint(app, each, existing, state):
                found.append(f"{each.describe()}: {said}")
        operation.state_forwards(app, state)
    return found


def _flat(operations: Sequence[Operation]) -> Iterator[Operation]:
    """What reaches the database, from nested operations, too."""
    for operation in operations:
        if isinstance(operation, SeparateDatabaseAndState):
            yield from _flat(operation.database_operations)
        else:
            yield operation


def _complaint(
    app: str, operation: Operation, existing: set[str], state: ProjectState
) -> str:
    if isinstance(operation, _BREAKS_THE_OLD):
        return "stop using it first, and remove it one release later"
    model = getattr(operation, "model_name_lower", getattr(operation, "name_lower", ""))
    if model not in existing:
        return ""
    if isinstance(operation, ops.AddField):
        field = operation.field
        fills_itself = field.null or field.db_default is not models.NOT_PROVIDED
        if not (fills_itself or isinstance(field, models.ManyToManyField)):
            return "old code inserts rows without it: let it be null or db_default"
        if field.unique and field.db_default is not models.NOT_PROVIDED:
            return "old code inserts its db_default twice"
    elif isinstance(operation, ops.AlterField):
        old = state.models[app, model].fields[operation.name]
        return _narrowing(old, operation.field)
    elif isinstance(operation, ops.AddConstraint):
        return "old code may write what it forbids: add it one release later"
    elif isinstance(operation, ops.AlterUniqueTogether):
        was = state.models[app, model].options.get("unique_together", set())
        if operation.option_value - {tuple(names) for names in was}:
            return "old code may write what it forbids: add it one release later"
    return ""


def _narrowing(old: models.Field, new: models.Field) -> str:
    """What the column took, and takes no more."""
    _, _, _, was = old.deconstruct()
    _, _, _, will = new.deconstruct()
    if old.get_internal_type() != new.get_internal_type():
        return "its type changes"
    if was.get("db_column") != will.get("db_column") or was.get("to") != will.get("to"):
        return "it becomes another column"
    if old.null and not new.null:
        return "old code may write null"
    if new.unique and not old.unique:
        return "old code may write a value twice"
    for size in ("max_length", "max_digits", "decimal_places"):
        if will.get(size) is not None and will[size] < (
            was.get(size) or will[size] + 1
        ):
            return f"its {size} shrinks"
    if "db_default" in was and "db_default" not in will:
        return "old code counts on its db_default"
    return ""


@pytest.mark.parametrize("name", sorted(ALL))
def test_release_that_runs_can_live_with_the_new_tables(name: str) -> None:
    app, _, own = name.partition(".")
    before = LOADER.project_state((app, own), at_end=False)

    found = complaints(app, ALL[name].operations, before)

    assert name in LATER or not found, f"{name}: {found}"


def test_list_of_exceptions_names_what_is_there() -> None:
    assert set(LATER) <= set(ALL)


def _altered(**changes: object) -> ops.AlterField:
    given = {"max_length": 20, "null": True, **changes}
    return ops.AlterField("thing", "name", models.CharField(**given))  # type: ignore[arg-type]


_UNIQUE = models.UniqueConstraint(fields=["name"], name="one")
_ADDED = models.IntegerField(db_default=0)
BREAKING = {
    "removed": ops.RemoveField("thing", "name"),
    "renamed": ops.RenameField("thing", "name", "title"),
    "not null": _altered(null=False),
    "shorter": _altered(max_length=10),
    "unique": _altered(unique=True),
    "another column": _altered(db_column="title"),
    "another type": ops.AlterField("thing", "name", models.IntegerField(null=True)),
    "constraint": ops.AddConstraint("thing", _UNIQUE),
    "together": ops.AlterUniqueTogether("thing", {("id", "name")}),
    "sql": RunSQL("DROP TABLE photos_photo"),
    "without a value": ops.AddField("thing", "size", models.IntegerField()),
    "one value": ops.AddField(
        "thing", "size", models.IntegerField(db_default=0, unique=True)
    ),
}
HARMLESS = {
    "longer": _altered(max_length=30),
    "text of any length": _altered(max_length=None, help_text="x"),
    "same": _altered(verbose_name="title"),
    "index": ops.AddIndex("thing", models.Index(fields=["name"], name="by_name")),
    "added": ops.AddField("thing", "size", _ADDED),
    "rows": ops.RunPython(ops.RunPython.noop),
}


def made_up(operation: Operation) -> list[str]:
    """What is said of it, on a table that the release before has."""
    before = ProjectState()
    fields = [
        ("id", models.AutoField(primary_key=True)),
        ("name", models.CharField(max_length=20, null=True)),
    ]
    ops.CreateModel("Thing", fields).state_forwards("made_up", before)
    return complaints("made_up", [operation], before)


@pytest.mark.parametrize("kind", sorted(BREAKING))
def test_what_breaks_the_old_release_is_refused(kind: str) -> None:
    assert len(made_up(BREAKING[kind])) == 1
    nested = SeparateDatabaseAndState(database_operations=[BREAKING[kind]])
    assert len(made_up(SeparateDatabaseAndState([nested]))) == 1


@pytest.mark.parametrize("kind", sorted(HARMLESS))
def test_what_the_old_release_can_live_with_is_not_refused(kind: str) -> None:
    assert made_up(HARMLESS[kind]) == []


def test_table_that_is_new_may_be_as_strict_as_it_likes() -> None:
    fields = [("id", models.AutoField(primary_key=True)), ("name", models.TextField())]
    new = [ops.CreateModel("Other", fields), ops.AddConstraint("other", _UNIQUE)]

    assert complaints("made_up", new, ProjectState()) == []
