"""Services for whole sites that run beside the test session."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from psycopg import sql


@pytest.fixture(scope="module")
def site_services() -> Iterator[dict[str, str]]:
    """The environment of a site with a database and a broker of its own.

    Empty in the embedded profile, where a home of its own is enough. Otherwise an
    empty database on the session's server, and two other numbers of its Redis.
    """
    if "MIEN_BROKER_URL" not in os.environ:
        yield {}
        return
    broker = urlsplit(os.environ["MIEN_BROKER_URL"])._replace(path="/2")
    cache = broker._replace(path="/3")
    for url in (broker, cache):
        with redis.Redis.from_url(url.geturl()) as client:
            client.flushdb()
    server = urlsplit(os.environ["MIEN_DATABASE_URL"])
    name = f"mien_site_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server.geturl(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield {
            "MIEN_DATABASE_URL": server._replace(path=f"/{name}").geturl(),
            "MIEN_BROKER_URL": broker.geturl(),
            "MIEN_CACHE_URL": cache.geturl(),
        }
        connection.execute(
            sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
        )
