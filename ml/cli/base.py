"""What the commands share: options of several, and how they speak."""

from __future__ import annotations

import math
import os
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ml.consensus import NO_LABEL
from ml.data import SPLITS, DataError, FaceSet, LabelSource, Layout
from ml.labels import EMOTIONS
from ml.progress import console

DataOption = Annotated[
    Path,
    typer.Option(
        "--data",
        envvar="FER_DATASET_DIR",
        help="Folder with train, validation and test.",
    ),
]
ModelOption = Annotated[
    Path, typer.Option("--model", help="ONNX file with its manifest beside it.")
]
MAX_THREADS = 4 * (os.cpu_count() or 1)
"""Thousands on two cores get nowhere, without a word."""
ThreadsOption = Annotated[
    int,
    typer.Option(min=0, max=MAX_THREADS, help="For the network; 0 leaves it to torch."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def finite(value: float) -> float:
    """Refuse what is no number: it lies in every range."""
    if math.isnan(value):
        raise typer.BadParameter("nan is no number.")
    return value


class SplitName(StrEnum):
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Labels(StrEnum):
    FOLDER = "folder"
    CONSENSUS = "consensus"


def say_next(wrote: Path, *words: str | Path) -> None:
    """What was written, and the command that takes it, in one line to be
    copied; what is in capitals is to be named."""
    command = shlex.join(["python", "-m", "ml", *map(str, words)])
    console.print(f"Wrote {wrote}. Next: {command}", highlight=False, soft_wrap=True)


def fail(sentence: str) -> NoReturn:
    """End with a sentence that says what to do, and exit code 2."""
    console.print("error:", style="bold red", end=" ")
    console.print(sentence, highlight=False, soft_wrap=True)
    sys.exit(2)


def check_place(
    out: Path, layout: Layout, option: str = "--out", *, folder: bool = True
) -> None:
    """What is written must lie neither among the user's pictures nor beside the
    votes, and where one can write: half an hour of work would be lost at its end."""
    # Unlike Path.resolve it takes links that lead to themselves.
    place = Path(os.path.realpath(out))
    if place == layout.base or any(
        place.is_relative_to(os.path.realpath(folder)) for folder in _pictures(layout)
    ):
        raise DataError(f"{out} lies inside the data set. Choose another {option}.")
    if os.path.lexists(place) and place.is_dir() != folder:
        wanted = "folder" if folder else "file"
        raise DataError(f"{out} is no {wanted}. Choose another {option}.")
    # A file is not written into but replaced.
    above = (place, *place.parents) if folder else place.parents
    standing = next(one for one in above if one.exists())
    if not (standing.is_dir() and os.access(standing, os.W_OK | os.X_OK)):
        raise DataError(
            f"{out} cannot be written: {standing} is no folder, or may not be written "
            f"to. Choose another {option}."
        )


def _pictures(layout: Layout) -> list[Path]:
    """The folders of pictures, and those in them that may be links to elsewhere."""
    tops = [layout.images, *([layout.others] if layout.others else [])]
    splits = [top / split for top in tops for split in SPLITS]
    emotions = [split / emotion.value for split in splits for emotion in EMOTIONS]
    return [*tops, *splits, *emotions]


def label_source(layout: Layout, labels: Labels | None) -> LabelSource:
    """Votes where there are any, unless ``labels`` says otherwise."""
    if labels is None:
        return "consensus" if layout.annotations is not None else "folder"
    if labels is Labels.CONSENSUS and layout.annotations is None:
        console.print("There are no annotations: the folders' labels are used.")
        return "folder"
    return labels.value


def source_of(
    faces: FaceSet,
    source: LabelSource,
    layout: Layout,
    where_none: str = "the folder is the vote",
) -> LabelSource:
    """Whose labels the faces that were read really have; says where votes lack, and
    what counts ``where_none`` fell on a file among others."""
    if source == "folder" or layout.annotations is None:
        return source
    if faces.votes is None:
        console.print(
            f"{layout.annotations} has votes on none of the {len(faces)} files, the "
            f"first of which is {faces.files[0]}: the folders' labels are used.",
            highlight=False,
            soft_wrap=True,
        )
        return "folder"
    alone = int((faces.votes.sum(axis=1) <= 1).sum())
    if alone:
        console.print(
            f"{alone} of {len(faces)} files have one vote or none: where there is "
            f"none, {where_none}.",
            highlight=False,
            soft_wrap=True,
        )
    return source


def need_labels(faces: FaceSet, source: LabelSource, part: str) -> None:
    """Refuse faces by which nothing can be judged; a folder always is a label."""
    if not (faces.labels(source) != NO_LABEL).any():
        raise DataError(
            f"No face of {part} has a {source} label: there is nothing to judge by. "
            "Try --labels folder."
        )


def warn_of_unreadable(*sets: FaceSet) -> None:
    """Say of each set how many files were left out, and why the first was."""
    for faces in sets:
        if not faces.unreadable:
            continue
        name, reason = faces.unreadable[0]
        console.print(
            f"{len(faces.unreadable)} files were left out; the first, {name}: {reason}",
            highlight=False,
            soft_wrap=True,
        )
