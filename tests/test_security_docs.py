"""Every test that ``docs/security.md`` names as a proof is there."""

from __future__ import annotations

import re

import pytest

from tests.stack import ROOT

TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def named_tests() -> list[tuple[str, str]]:
    """(file, test or class) in the order of the text; ``::name`` belongs to the file
    before it."""
    found: list[tuple[str, str]] = []
    file = ""
    for path, name in re.findall(r"`([\w/]*test_\w+\.py)?(?:::(\w+))?`", TEXT):
        file = path or file
        if path or name:
            found.append((file, name))
    return found


@pytest.mark.parametrize(("file", "name"), sorted(set(named_tests())))
def test_proof_is_there(file: str, name: str) -> None:
    room, _, short = file.rpartition("/")
    folder = {"": "tests", "ml": "ml/tests"}.get(room, f"webapp/{room}/tests")
    path = ROOT / folder / short

    assert path.exists(), path
    if name:
        text = path.read_text(encoding="utf-8")
        assert re.search(rf"^\s*(def|class) {name}\b", text, re.M), f"{file}::{name}"


def test_there_are_as_many_as_one_would_expect() -> None:
    assert len(named_tests()) > 25
