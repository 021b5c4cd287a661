"""Is the process in this container alive? ``python deploy/health.py web|worker``.

Needs nothing but Python, so that asking costs nothing. Whether the site is fit to
serve is another question, which ``/readyz`` answers to the proxy.
"""

from __future__ import annotations

import http.client
import os
import sys
import time
from pathlib import Path

ALIVE_FOR_SECONDS = 60.0


def web() -> str:
    """Empty, or what is wrong."""
    port = int((os.environ.get("MIEN_BIND") or ":8000").rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/livez")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"web does not answer: {error}"
    finally:
        connection.close()
    return "" if status == 200 else f"web answers {status}"


def worker() -> str:
    """Empty, or what is wrong: a worker and the beat touch their file all the time."""
    path = Path(os.environ.get("MIEN_ALIVE_FILE", ""))
    try:
        age = time.time() - path.stat().st_mtime
    except OSError as error:
        return f"no sign of life yet: {error}"
    return "" if age < ALIVE_FOR_SECONDS else f"no sign of life for {age:.0f} s"


def main(words: list[str]) -> int:
    checks = {"web": web, "worker": worker}
    if len(words) != 1 or words[0] not in checks:
        print(f"usage: health.py {'|'.join(checks)}", file=sys.stderr)
        return 2
    wrong = checks[words[0]]()
    if wrong:
        print(wrong, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
