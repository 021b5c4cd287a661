"""What the README claims is what is there."""

from __future__ import annotations

import json
import re

import pytest

from tests.readme import MANIFEST, README, with_figures
from tests.stack import ROOT

DOCS = ROOT / "docs"


def test_figures_are_those_of_the_champion_that_ships() -> None:
    manifest = json.loads(MANIFEST.read_text(encoding="utf-8"))
    text = README.read_text(encoding="utf-8")

    assert text == with_figures(text, manifest), "run: python -m tests.readme"


def test_every_file_that_it_names_is_there() -> None:
    text = README.read_text(encoding="utf-8")
    linked = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    named = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)

    assert linked
    assert named
    missing = [name for name in linked + named if not (ROOT / name).exists()]
    assert missing == []


def test_documents_show_every_picture_and_link_to_what_is_there() -> None:
    linked = set()
    for page in (README, *sorted(DOCS.glob("*.md"))):
        for name in re.findall(
            r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")
        ):
            linked.add((page.parent / name).resolve())
    pictures = {path for path in (DOCS / "pictures").rglob("*") if path.is_file()}

    assert [path for path in sorted(linked) if not path.exists()] == []
    assert pictures - linked == set()


@pytest.mark.parametrize("target", ["run", "test"])
def test_its_commands_are_targets(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert f"make {target}" in README.read_text(encoding="utf-8")
