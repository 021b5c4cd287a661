"""Typed helpers around the environment: a wrong value says which and why."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}


def text(name: str, default: str | None = None) -> str:
    """The variable, or ``default``; without either, ``ImproperlyConfigured``.

    ``NAME_FILE`` may name a file that holds the value instead (for secrets).
    """
    value = os.environ.get(name)
    if value is not None:
        return value
    file_name = os.environ.get(f"{name}_FILE")
    if file_name:
        try:
            return Path(file_name).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ImproperlyConfigured(
                f"{name}_FILE names {file_name}, which cannot be read: {error}"
            ) from error
    if default is None:
        raise ImproperlyConfigured(f"Set {name} in the environment.")
    return default


def flag(name: str, default: bool = False) -> bool:
    """1, true, yes, on against 0, false, no, off."""
    value = text(name, "1" if default else "0").strip().lower()
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ImproperlyConfigured(f"{name} must be 1 or 0, not {value!r}.")


def integer(name: str, default: int, minimum: int = 0) -> int:
    """A whole number of at least ``minimum``."""
    value = text(name, str(default))
    try:
        number = int(value)
    except ValueError:
        raise ImproperlyConfigured(
            f"{name} must be a whole number, not {value!r}."
        ) from None
    if number < minimum:
        raise ImproperlyConfigured(f"{name} must be at least {minimum}.")
    return number


def listing(name: str, default: str = "") -> list[str]:
    """Comma-separated words, blanks dropped."""
    return [word.strip() for word in text(name, default).split(",") if word.strip()]


def with_password(url: str, password: str) -> str:
    """The URL with this password, for one that stands in a file of its own."""
    parts = urlsplit(url)
    if not password or parts.hostname is None:
        return url
    user, at, address = parts.netloc.rpartition("@")
    name = user.partition(":")[0] if at else ""
    return parts._replace(
        netloc=f"{name}:{quote(password, safe='')}@{address}"
    ).geturl()


def storage(url: str) -> dict[str, Any]:
    """``s3://key:secret@host:port/bucket?region=…&tls=0`` as Django's ``STORAGES``
    name it; empty for the folder below ``MIEN_HOME``.

    Without a host it is AWS, without a key whatever boto finds on its own.
    """
    if not url:
        return {"BACKEND": "webapp.core.storage.DurableFileSystemStorage"}
    parts = urlsplit(url)
    bucket = unquote(parts.path.strip("/"))
    if parts.scheme != "s3" or not bucket or "/" in bucket:
        raise ImproperlyConfigured(
            "MIEN_STORAGE_URL must be s3://key:secret@host:port/bucket."
        )
    choices = dict(parse_qsl(parts.query))
    options: dict[str, Any] = {
        "bucket_name": bucket,
        "access_key": unquote(parts.username or "") or None,
        "secret_key": unquote(parts.password or "") or None,
        "region_name": choices.get("region", "us-east-1"),
    }
    if parts.hostname:
        scheme = "http" if choices.get("tls", "1") in _FALSE else "https"
        address = parts.netloc.rpartition("@")[2]
        options["endpoint_url"] = f"{scheme}://{address}"
    return {"BACKEND": "webapp.core.s3.DurableS3Storage", "OPTIONS": options}


def cache_beside(broker_url: str) -> str:
    """The cache on the broker's server: its next number, or 1 on a socket."""
    parts = urlsplit(broker_url)
    if parts.scheme == "redis+socket":
        return f"unix://{parts.path}?db=1"
    number = parts.path.strip("/") or "0"
    if parts.scheme not in ("redis", "rediss") or not number.isdecimal():
        raise ImproperlyConfigured(
            "MIEN_BROKER_URL must be redis://:password@host:port/number."
        )
    return parts._replace(path=f"/{int(number) + 1}").geturl()


def database(url: str) -> dict[str, Any]:
    """``sqlite:///path`` or ``postgres://user:password@host:port/name?option=…``."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return {
            "ENGINE": "webapp.core.sqlite",
            "NAME": unquote(parts.path),
            # Opening it anew, with all that follows, costs more than a query.
            "CONN_MAX_AGE": 60,
            "OPTIONS": {
                # A transaction that will write takes its lock at once: with
                # DEFERRED it would fail half-way instead of waiting its turn.
                "transaction_mode": "IMMEDIATE",
                # Seconds that SQLite itself waits for it; our backend then goes on
                # waiting, for ten seconds, and says why.
                "timeout": 0.02,
                # WAL: readers and the writer do not block each other. FULL: a
                # photo that was acknowledged survives a power cut.
                "init_command": (
                    "PRAGMA journal_mode=WAL;"
                    "PRAGMA synchronous=FULL;"
                    "PRAGMA mmap_size=134217728;"
                    # What is deleted is overwritten, not only forgotten.
                    "PRAGMA secure_delete=ON;"
                ),
            },
            # Several processes must see one file in the tests, too.
            "TEST": {"NAME": unquote(parts.path) + ".test"},
        }
    if parts.scheme in ("postgres", "postgresql"):
        options: Mapping[str, str] = dict(parse_qsl(parts.query))
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": unquote(parts.path.lstrip("/")),
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": unquote(parts.hostname or options.get("host", "")),
            "PORT": str(parts.port or ""),
            "CONN_MAX_AGE": 60,
            "CONN_HEALTH_CHECKS": True,
            "OPTIONS": {
                "connect_timeout": 5,
                # A server that went away without a word is noticed within seconds,
                # not after the kernel's quarter of an hour.
                "keepalives_idle": 5,
                "keepalives_interval": 2,
                "keepalives_count": 3,
                "tcp_user_timeout": 10_000,
                **{key: value for key, value in options.items() if key != "host"},
            },
        }
    raise ImproperlyConfigured(
        "MIEN_DATABASE_URL must start with sqlite:// or postgres://."
    )
