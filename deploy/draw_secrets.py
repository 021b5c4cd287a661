"""Draws every secret of an installation: ``python deploy/draw_secrets.py [FOLDER]``.

Into ``deploy/secrets``, where ``compose.yaml`` looks for them. What is there stays, so
it may be run again. Nobody but you can enter the folder; the files themselves must be
readable to the users in the containers, which are not you.
"""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path

DEFAULT = Path(__file__).parent / "secrets"
BUCKET = "mien"


def keep(folder: Path, name: str, value: str) -> str:
    """Write a secret unless there is one; the one that holds."""
    path = folder / name
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(value + "\n", encoding="utf-8")
    path.chmod(0o444)
    return path.read_text(encoding="utf-8").strip()


def draw(folder: Path) -> None:
    """Make every secret that is missing."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    keep(folder, "secret_key", secrets.token_urlsafe(50))
    keep(folder, "metrics_token", secrets.token_urlsafe(32))
    keep(folder, "postgres_password", secrets.token_urlsafe(32))
    redis = keep(folder, "redis_password", secrets.token_urlsafe(32))
    keep(folder, "redis_acl", f"user default on >{redis} ~* &* +@all")
    key = keep(folder, "store_key", secrets.token_hex(10))
    secret = keep(folder, "store_secret", secrets.token_urlsafe(32))
    keep(folder, "storage_url", f"s3://{key}:{secret}@store:8333/{BUCKET}?tls=0")
    identity = {
        "name": "mien",
        "credentials": [{"accessKey": key, "secretKey": secret}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    keep(folder, "store_identities", json.dumps({"identities": [identity]}))


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    draw(target)
    print(f"Secrets are in {target}: keep a copy in a safe place.")
