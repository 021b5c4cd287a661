"""What tests of several apps ask of their queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection


@contextmanager
def query_limit(most: int) -> Iterator[None]:
    """No query inside has more parameters, on whatever database: SQLite as it comes
    takes 32,766."""

    def execute(
        run: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        assert many or len(params or ()) <= most, sql
        return run(sql, params, many, context)

    with connection.execute_wrapper(execute):
        yield
