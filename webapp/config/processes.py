"""Processes that end with the one that started them, in whatever way it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

_GUARD: Final = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
sys.stdin.buffer.read()
os.killpg(0, signal.SIGKILL)
"""


class ProcessGroup:
    """A process group led by a guard.

    The guard holds the read end of a pipe whose only write end is ours. When that
    closes, because ``kill`` was called or because this process is gone, even by
    SIGKILL, the guard kills the whole group and so itself. Works alike on Linux and
    macOS. Start members with ``subprocess.Popen(..., process_group=group.id)``.
    """

    def __init__(self, keep_open: Sequence[int] = ()) -> None:
        """``keep_open``: file descriptors that stay open as long as the group, a
        lock for instance."""
        self._keep_open = tuple(keep_open)
        self._guard = self._start_guard(0)
        self.id: int = self._guard.pid

    def renew(self) -> None:
        """Start another guard where somebody killed ours."""
        if self._guard.poll() is not None:
            self._guard = self._start_guard(self.id)

    def kill(self) -> None:
        """End every member at once. Returns when the guard is gone, too."""
        if self._guard.poll() is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.id, signal.SIGKILL)
            return
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()

    def _start_guard(self, group: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", "-c", _GUARD],
            stdin=subprocess.PIPE,
            pass_fds=self._keep_open,
            process_group=group,
        )
