"""How much one browser or one address may ask for, counted where all web processes
see it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import cache
from ipaddress import IPv4Address, ip_address, ip_network
from math import ceil
from typing import Any, Final, cast

from django.conf import settings
from django.http import HttpRequest
from limits import RateLimitItem, parse_many
from limits.errors import StorageError
from limits.storage import SlidingWindowCounterSupport, storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter
from redis.exceptions import RedisError

from webapp.core.errors import DomainError
from webapp.core.metrics import REFUSALS

logger = logging.getLogger(__name__)

_RETRY_STORAGE_AFTER_SECONDS: Final = 5.0


class RateLimited(DomainError):
    """Too many requests; ``retry_after_seconds`` says when to come back."""

    code = "rate_limited"
    http_status = 429

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__(
            "That was a lot at once. Nothing is lost; please wait "
            f"{_in_words(retry_after_seconds)} and try again."
        )
        self.retry_after_seconds = retry_after_seconds


class MoreThanRate(DomainError):
    """More at once than a rate ever lets in: waiting would not help."""

    code = "too_many"

    def __init__(self, most: int) -> None:
        super().__init__(
            f"That is more than the {most} that may be sent at once here. Please send "
            "fewer."
        )


def client_address(request: HttpRequest) -> str:
    """The address that the outermost trusted proxy saw.

    Only as many entries of X-Forwarded-For are believed as there are proxies of
    ours (``MIEN_NUM_PROXIES``), counted from the right: the rest is what a client
    wrote itself. A request with fewer entries did not come through all of them, and
    an entry that is no address came from none: then it is who connects to us.
    """
    proxies: int = settings.NUM_PROXIES
    peer = str(request.META.get("REMOTE_ADDR", ""))
    forwarded: str = request.META.get("HTTP_X_FORWARDED_FOR", "")
    entries = [word.strip() for word in forwarded.split(",") if word.strip()]
    if not proxies or len(entries) < proxies:
        return peer
    try:
        return str(ip_address(entries[-proxies]))
    except ValueError:
        return peer


def address_group(address: str) -> str:
    """Whom an address stands for when requests are counted: an IPv6 customer has at
    least 64 bits to choose from, so all of those are one."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, IPv4Address):
        return str(ip)
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return str(ip_network((ip, 64), strict=False))


def log_in_address(request: HttpRequest, *_: Any) -> str:
    """The address that wrong passwords are counted by: of an IPv6 customer's /64 the
    first, as a whole address, for that is what their table keeps."""
    return address_group(client_address(request)).partition("/")[0]


def check_rate(*, scope: str, identities: Sequence[str], cost: int = 1) -> None:
    """Count a request against every identity; raise ``RateLimited`` over the limit,
    ``MoreThanRate`` where waiting would not help. What is refused counts for nobody,
    unless others came in at the same moment.

    The limits of a scope stand in ``settings.RATES`` ("60/minute;1000/hour"). While
    the store is away nobody is refused: rates are a courtesy, photos are the job.
    """
    check_size(scope=scope, cost=cost)
    limits = _limits(settings.RATES[scope])
    keys = [(item, scope, identity) for item in limits for identity in identities]
    url = settings.RATES_STORAGE_URL
    if not keys or time.monotonic() < _retry_at.get(url, 0.0):
        return
    try:
        limiter = _limiter(url)
        # All are asked before one is charged. Counting may refuse all the same, where
        # others came in between.
        for lets_in in (limiter.test, limiter.hit):
            for item, *key in keys:
                if not lets_in(item, *key, cost=cost):
                    REFUSALS.labels(f"{RateLimited.code}_{scope}").inc()
                    raise RateLimited(_seconds_until_room(limiter, item, key, cost))
    except (RedisError, StorageError, OSError) as error:
        logger.warning("rates are not counted, their store is away: %s", error)
        _retry_at[url] = time.monotonic() + _RETRY_STORAGE_AFTER_SECONDS


def check_size(*, scope: str, cost: int) -> None:
    """Raise ``MoreThanRate`` where so much at once is over a limit of the scope."""
    most = min((item.amount for item in _limits(settings.RATES[scope])), default=cost)
    if cost > most:
        REFUSALS.labels(f"{MoreThanRate.code}_{scope}").inc()
        raise MoreThanRate(most)


def _seconds_until_room(
    limiter: SlidingWindowCounterRateLimiter,
    item: RateLimitItem,
    key: Sequence[str],
    cost: int,
) -> int:
    """When ``cost`` is let in if nobody asks meanwhile; the library tells only when
    there is room for one more, and fifty photos would be sent away again and again."""
    window = item.get_expiry()
    storage = cast(SlidingWindowCounterSupport, limiter.storage)
    previous, previous_ends, current, current_ends = storage.get_sliding_window(
        item.key_for(*key), window
    )
    # What was counted must fall below this. The previous window weighs ever less, and
    # the current one takes its place ``window`` seconds before its count is dropped.
    below = max(item.amount - cost + 1, 0)
    if current < below:
        wait = previous_ends - window * (below - current) / max(previous, 1)
    else:
        wait = current_ends - window + window * (1 - below / max(current, 1))
    return max(1, ceil(wait))


_retry_at: dict[str, float] = {}
"""When a store that was away is asked again: each try costs its time-out."""


@cache
def _limits(text: str) -> tuple[RateLimitItem, ...]:
    return tuple(parse_many(text)) if text else ()


@cache
def _limiter(url: str) -> SlidingWindowCounterRateLimiter:
    storage = storage_from_string(
        url, socket_timeout=1, socket_connect_timeout=1, wrap_exceptions=False
    )
    return SlidingWindowCounterRateLimiter(storage)


def _in_words(seconds: int) -> str:
    if seconds < 90:
        return f"{seconds} second{'' if seconds == 1 else 's'}"
    return f"{ceil(seconds / 60)} minutes"
