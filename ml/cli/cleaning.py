"""Commands that look at a folder of faces, and find what is wrong with it."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ml.cli.base import (
    DataOption,
    ModelOption,
    check_place,
    say_next,
    source_of,
)
from ml.data import DataError, find_layout
from ml.detection import FaceDetector
from ml.inference import SHIPPED_MODEL, EmotionClassifier
from ml.labels import EMOTIONS
from ml.progress import console, progress_bars


class JudgeName(StrEnum):
    MODEL = "model"
    FOLDS = "folds"


def eda(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder for page and figures.")] = Path(
        "mien-eda"
    ),
) -> None:
    """Show what a data set holds: counts, brightness, mean faces, duplicates."""
    from ml.eda import explore

    layout = find_layout(data)
    check_place(out, layout)
    with progress_bars() as progress:
        summary = explore(layout, out, progress)
    table = Table(title="pictures")
    for heading in ("split", *EMOTIONS):
        table.add_column(heading)
    for split, row in summary["counts"].items():
        table.add_row(split, *(str(count) for count in row.values()))
    console.print(table)
    console.print(f"Wrote {out / 'index.html'}", highlight=False, soft_wrap=True)


def clean(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder for report and manifest.")] = Path(
        "mien-clean"
    ),
    model: ModelOption = SHIPPED_MODEL,
    judge: Annotated[
        JudgeName,
        typer.Option(
            help="Who judges labels that nobody voted on: the model itself, or heads "
            "fitted on its features by folds."
        ),
    ] = JudgeName.MODEL,
    votes: Annotated[bool, typer.Option(help="Use annotations, if any.")] = True,
    detect: Annotated[bool, typer.Option(help="Look for a face in each.")] = True,
) -> None:
    """Find what is wrong with a folder of faces; write report and cleaned manifest."""
    from ml.cleaning import clean as clean_folder
    from ml.cleaning_report import write_cleaning
    from ml.suspicion import measure_suspicion

    layout = find_layout(data)
    check_place(out, layout)
    classifier = EmotionClassifier.load(model)
    with progress_bars() as progress:
        result = clean_folder(
            layout,
            classifier,
            FaceDetector() if detect else None,
            judge=judge.value,
            use_votes=votes,
            progress=progress,
        )
    if judge is JudgeName.FOLDS and result.judge == "model":
        console.print(
            "There are too few faces of each emotion without votes to fit heads on by "
            "folds: the model itself judged their labels.",
            soft_wrap=True,
        )
    if votes:
        where_none = (
            "the folder's label was judged as without votes"
            if result.judge
            else "the folder's label was judged by nobody"
        )
        source_of(result.faces, "consensus", layout, where_none)
    write_cleaning(out, result)
    table = Table(title="findings")
    table.add_column("finding")
    table.add_column("files", justify="right")
    for kind, count in result.counts().items():
        table.add_row(kind.value, str(count))
    console.print(table)
    if not votes:
        try:
            measures = measure_suspicion(result, layout)
        except DataError as error:
            # It was asked for without votes: they only would have judged it.
            console.print(f"Not judged by the votes: {error}", highlight=False)
            measures = {}
        for split, found in measures.items():
            console.print(
                f"{split}, judged by the votes: {found.wrong} of {found.faces} labels "
                f"are wrong; AUROC {_said(found.auroc, '.3f')}, of the first 500 "
                f"{_said(found.precision_of_first_500, '.1%')} are; of "
                f"{found.suspects} called suspect {_said(found.precision, '.1%')}, "
                f"which are {_said(found.recall, '.1%')} of them",
                highlight=False,
                soft_wrap=True,
            )
    manifest = out / "cleaned.csv"
    say_next(out, "train", "--data", data, "--manifest", manifest, "--run", "RUN")


def _said(share: float, form: str) -> str:
    """The share in that format; none where there was nothing to divide by."""
    return "none" if math.isnan(share) else format(share, form)
