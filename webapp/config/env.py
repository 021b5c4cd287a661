"""Typed helpers around the environment: a wrong value says which and why."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}


_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f]")
_RATE: Final = re.compile(r"[1-9]\d{0,8}/(second|minute|hour|day)")
_ORIGIN: Final = re.compile(r"https?://[^/?#\s]+")
# Nobody's site has a name that ends in .test (RFC 6761).
_OWN_MACHINE: Final = re.compile(
    r"(.+\.)?localhost|127(\.\d{1,3}){3}|\[::1\]|[\w-]+\.test"
)
_DIGITS_MAX: Final = 15


def text(name: str, default: str | None = None) -> str:
    """The variable, or ``default``; without either, ``ImproperlyConfigured``.

    ``NAME_FILE`` may name a file that holds the value instead (for secrets); an empty
    one holds none. Blanks and line ends around a value do not belong to it.
    """
    value = os.environ.get(name)
    file_name = os.environ.get(f"{name}_FILE")
    if value is None and file_name:
        value = _from_file(f"{name}_FILE", file_name)
    if value is None:
        if default is None:
            raise ImproperlyConfigured(f"Set {name} in the environment.")
        return default
    value = value.strip()
    if _UNPRINTABLE.search(value):
        raise ImproperlyConfigured(f"{name} must be one line of text.")
    return value


def _from_file(name: str, file_name: str) -> str:
    try:
        # What some editors put before the text is no part of a secret.
        value = Path(file_name).read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ImproperlyConfigured(
            f"{name} names {file_name}, which cannot be read: {error}"
        ) from error
    if not value:
        raise ImproperlyConfigured(f"{name} names {file_name}, which is empty.")
    return value


def flag(name: str, default: bool = False) -> bool:
    """1, true, yes, on against 0, false, no, off."""
    value = text(name, "1" if default else "0").strip().lower()
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ImproperlyConfigured(f"{name} must be 1 or 0, not {value!r}.")


def integer(
    name: str, default: int, minimum: int = 0, maximum: int = 1_000_000_000
) -> int:
    """A whole number from ``minimum`` to ``maximum``."""
    value = text(name, str(default))
    try:
        # Python gives up on thousands of digits with advice for programmers.
        number = int(value[: _DIGITS_MAX + 1])
    except ValueError:
        raise ImproperlyConfigured(
            f"{name} must be a whole number, not {value[:80]!r}."
        ) from None
    if number < minimum:
        raise ImproperlyConfigured(f"{name} must be at least {minimum}.")
    if number > maximum:
        raise ImproperlyConfigured(f"{name} must be at most {maximum}.")
    return number


def choice(name: str, default: str, allowed: Sequence[str]) -> str:
    """One of the allowed words."""
    value = text(name, default)
    if value not in allowed:
        *others, last = allowed
        raise ImproperlyConfigured(
            f"{name} must be {', '.join(others)} or {last}, not {value[:80]!r}."
        )
    return value


def rates(name: str, default: str) -> str:
    """``120/minute;1500/hour``; nothing counts where it is empty."""
    value = text(name, default)
    words = [word.strip() for word in value.split(";")] if value else []
    if not all(map(_RATE.fullmatch, words)):
        raise ImproperlyConfigured(
            f"{name} must be a count for a second, minute, hour or day, as in "
            f"120/minute;1500/hour, or empty for none; not {value[:80]!r}."
        )
    return value


def hosts(name: str, default: str = "") -> list[str]:
    """Names of hosts, and nothing around them."""
    names = listing(name, default)
    for host in names:
        if "/" in host or " " in host:
            raise ImproperlyConfigured(
                f"{name} must be names alone, with commas between them, as in "
                f"mien.example,www.mien.example; not {host[:80]!r}."
            )
    return names


def is_own_machine(host: str) -> bool:
    """Whether the name leads from this machine to itself, or is kept for tests."""
    return bool(_OWN_MACHINE.fullmatch(host.lower()))


def origins(name: str) -> list[str]:
    """As browsers send them: scheme, host and port, and nothing behind."""
    found = listing(name)
    for origin in found:
        if not _ORIGIN.fullmatch(origin):
            raise ImproperlyConfigured(
                f"{name} must be origins, with commas between them, as in "
                f"https://mien.example,https://www.mien.example; not {origin[:80]!r}."
            )
    return found


def url(name: str, default: str) -> str:
    """An address that can be taken apart. What is refused is not repeated: it may
    hold a password."""
    value = text(name, default)
    try:
        parts = urlsplit(value)
        _ = parts.port
        whole = not parts.fragment and " " not in parts.netloc
    except ValueError:
        whole = False
    if not whole:
        raise ImproperlyConfigured(
            f"{name} is no address that can be read: see to its port, and write # / @ "
            ": and % in a user or password as %23 %2F %40 %3A and %25."
        )
    return value


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


def folder(name: str, default: Path) -> Path:
    """An absolute path; ~ is the user's own folder, with or without a shell."""
    try:
        return Path(text(name, "") or default).expanduser().resolve()
    except (OSError, RuntimeError) as error:
        raise ImproperlyConfigured(f"{name} cannot be used: {error}") from error


def path_in_url(path: Path) -> str:
    """The path as a part of an address: a folder's name may hold % or #."""
    return quote(str(path))


def cache(url: str) -> str:
    """An address that Django's cache and the counting of rates both read."""
    parts = urlsplit(url)
    on_socket = parts.scheme == "unix"
    place = parts.path if on_socket else parts.hostname
    # What is no number the client passes over: it would take 0, the broker's own.
    number = "0" if on_socket else parts.path.strip("/") or "0"
    known = parts.scheme in ("redis", "rediss", "unix") and place
    if not known or not number.isdecimal():
        raise ImproperlyConfigured(
            "MIEN_CACHE_URL must be redis://:password@host:port/number or "
            "unix:///path?db=number."
        )
    return url


def cache_beside(broker_url: str) -> str:
    """The cache on the broker's server: its next number, or 1 on a socket."""
    parts = urlsplit(broker_url)
    if parts.scheme == "redis+socket" and parts.path:
        return f"unix://{parts.path}?db=1"
    number = parts.path.strip("/") or "0"
    known = parts.scheme in ("redis", "rediss") and parts.hostname
    if not known or not number.isdecimal():
        raise ImproperlyConfigured(
            "MIEN_BROKER_URL must be redis://:password@host:port/number."
        )
    return parts._replace(path=f"/{int(number) + 1}").geturl()


def database(url: str) -> dict[str, Any]:
    """``sqlite:////path`` or ``postgres://user:password@host:port/name?option=…``."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite" and parts.path.strip("/"):
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
    if parts.scheme in ("postgres", "postgresql") and parts.path.strip("/"):
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
        "MIEN_DATABASE_URL must be sqlite:////path or "
        "postgres://user:password@host:port/name."
    )
