"""What a benchmark writes into docs: a table, with which model, between its marks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ml.manifest import ModelManifest

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
_PICTURES: Final = DOCS / "pictures"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def model_line(model: ModelManifest) -> str:
    """With which model it was measured."""
    return f"Measured with {model.version}."


def put_picture(name: str, picture: bytes) -> None:
    """A PNG beside the pages of docs."""
    _PICTURES.mkdir(exist_ok=True)
    (_PICTURES / f"{name}.png").write_bytes(picture)


def put(name: str, text: str, page: Path) -> None:
    """Replace what stands between the marks of a command in a page of docs."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    report = page.read_text(encoding="utf-8")
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(report):
        raise SystemExit(f"{page} has no place for {name}.")
    fresh = pattern.sub(lambda _: f"{begin}\n{text}\n{end}", report)
    page.write_text(fresh, encoding="utf-8")
