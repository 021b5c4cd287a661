"""What cleaning leaves in a folder: report, gallery, manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import numpy as np

from ml import gallery
from ml.cleaning import write_cleaned
from ml.findings import CleaningResult, Finding, Kind, explanation
from ml.manifest import write_atomically

_SHOWN: Final = 48


def write_cleaning(folder: Path, result: CleaningResult) -> None:
    """``report.json`` (a list of file, finding, detail), ``report.md``,
    ``gallery.html`` (shows the user's pictures) and ``cleaned.csv``."""
    listed = [
        {
            "file": finding.file,
            "finding": finding.finding.value,
            "detail": finding.detail,
        }
        for finding in result.findings
    ]
    write_atomically(
        folder / "report.json", (json.dumps(listed, indent=1) + "\n").encode()
    )
    write_atomically(folder / "report.md", _summary(result).encode())
    write_atomically(folder / "gallery.html", _gallery(result))
    write_cleaned(folder / "cleaned.csv", result.rows)


def _summary(result: CleaningResult) -> str:
    kept = sum(row.weight > 0 for row in result.rows)
    lines = [
        "# What cleaning found",
        "",
        f"{len(result.rows)} files; {kept} stay in the cleaned manifest, "
        f"{len(result.rows) - kept} are left out. No file was changed.",
        "",
        "| finding | files | what it means and what was done |",
        "|---|---|---|",
    ]
    lines += [
        f"| {kind.value} | {count} | {explanation(kind, result.judge)} |"
        for kind, count in result.counts().items()
    ]
    return "\n".join(lines) + "\n"


def _gallery(result: CleaningResult) -> bytes:
    place = {file: i for i, file in enumerate(result.faces.files)}
    sections = []
    for kind, count in result.counts().items():
        if not count:
            continue
        found = [finding for finding in result.findings if finding.finding is kind]
        if kind is Kind.SUSPECT_LABEL:
            found.sort(key=lambda finding: -result.suspicion[place[finding.file]])
        shown = {
            finding.file: (_crop(result, place, finding), finding.detail)
            for finding in found[:_SHOWN]
        }
        sections.append(gallery.faces(f"{kind.value}: {count}", shown))
        sections.append(gallery.paragraph(explanation(kind, result.judge)))
    return gallery.page("What cleaning found", sections)


def _crop(
    result: CleaningResult, place: dict[str, int], finding: Finding
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | None:
    index = place.get(finding.file)
    return None if index is None else np.asarray(result.faces.crops[index])
