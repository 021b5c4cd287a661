"""Worker hosts with networks of their own join by three variables; one is cut off."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

from tests.hosts import enter
from tests.installing import install_packages
from tests.services import install_missing
from tests.stack import ROOT

CUT_SECONDS = os.environ.get("CUT_SECONDS", "8")
PHOTOS = "60"
NEEDED = (
    "This test makes networks. Run it as root, or on a kernel that lets users have "
    "namespaces (sysctl user.max_user_namespaces, and on Ubuntu "
    "kernel.apparmor_restrict_unprivileged_userns=0), with iproute2 and util-linux."
)


def test_host_that_is_cut_off_loses_no_photo_and_comes_back() -> None:
    packages = {"unshare": "util-linux", "ip": "iproute2"}
    missing = [packages[name] for name in packages if shutil.which(name) is None]
    if missing:
        install_packages(missing)
    may = subprocess.run(
        [*enter(), "ip", "link", "add", "probe", "type", "bridge"],
        capture_output=True,
        text=True,
    )
    assert may.returncode == 0, f"{NEEDED}\n{may.stderr}"
    install_missing()

    result = subprocess.run(
        [*enter(), sys.executable, "-m", "tests.hosts", CUT_SECONDS, PHOTOS],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("MIEN_")},
        capture_output=True,
        text=True,
    )

    assert result.returncode == 0, result.stdout + result.stderr
    told = json.loads(result.stdout.splitlines()[-1])
    print(told)
    assert told["by_status"] == {"done": told["photos"]}
    assert told["predictions"] == told["photos"]
    assert told["during_the_cut"] > 0
