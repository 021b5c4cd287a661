"""Folder data set and annotations -> arrays in memory.

A data set is a folder with ``train``, ``validation`` and ``test``, each with one
folder an emotion. Beside it (or around it, as ``facial_emotion_images/``) there may
lie ``annotations.csv`` with the votes of several people for each file, and
``other_expressions/`` with faces that were filed under another emotion.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from ml.consensus import NO_LABEL, VOTE_COLUMNS, soft_labels, strict_majority
from ml.duplicates import resembles
from ml.images import ImageRefused, decode_image, read_file
from ml.labels import EMOTIONS, Emotion
from ml.manifest import InputSpec
from ml.preprocessing import crop_faces, whole_picture

UInt8Array = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]

Split = Literal["train", "validation", "test"]
LabelSource = Literal["folder", "consensus"]

SPLITS: Final[tuple[Split, ...]] = ("train", "validation", "test")
IMAGE_FOLDER: Final = "facial_emotion_images"
OTHERS_FOLDER: Final = "other_expressions"
ANNOTATIONS_FILE: Final = "annotations.csv"
MAX_VOTES: Final = 1_000_000
MAX_WEIGHT: Final = 1_000
"""Cleaning gives at most 1; what people write may count more, and still be summed."""

Progress = Callable[[str, int], Callable[[], None]]
"""``progress(title, total)`` starts a bar and returns what advances it by one."""


class DataError(Exception):
    """The data cannot be used; ``str()`` says what to do, to a person."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the parts of a data set lie.

    ``images`` holds the splits. Names of files are relative to ``base``, which is
    the annotations' folder where there are any.
    """

    base: Path
    images: Path
    others: Path | None
    annotations: Path | None


@dataclass(frozen=True, slots=True)
class FaceSet:
    """N faces in memory.

    ``crops`` uint8 (N, S, S, C); ``folder_labels`` and ``consensus`` int64 (N,),
    indices into ``EMOTIONS`` or ``NO_LABEL``; ``votes`` int64 (N, 10) in
    ``VOTE_COLUMNS`` order, None where nobody voted; ``targets`` float32 (N, K)
    what training aims at, rows sum to 1, the first four columns the emotions;
    ``weights`` float32 (N,); ``unreadable`` lists what could not be opened, and why.
    """

    files: tuple[str, ...]
    crops: UInt8Array
    folder_labels: IntArray
    targets: Float32Array
    weights: Float32Array
    votes: IntArray | None = None
    unreadable: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    @property
    def consensus(self) -> IntArray:
        """The strict majority of the votes; the folder's label without votes."""
        if self.votes is None:
            return self.folder_labels
        return strict_majority(self.votes)

    def digest(self, *, exact: bool = True) -> str:
        """SHA-256 of what is learned from it; less the targets, where they are not
        ``exact``: a teacher's word differs in the last digit between machines."""
        said = hashlib.sha256("\n".join(self.files).encode(errors="surrogateescape"))
        arrays: list[npt.NDArray[Any]] = [self.crops, self.folder_labels, self.weights]
        arrays += [] if self.votes is None else [self.votes]
        arrays += [self.targets] if exact else []
        for array in arrays:
            said.update(repr((array.shape, array.dtype.str)).encode())
            said.update(np.ascontiguousarray(array).data)
        return said.hexdigest()

    def labels(self, source: LabelSource) -> IntArray:
        return self.folder_labels if source == "folder" else self.consensus

    def with_crops(self, crops: UInt8Array) -> FaceSet:
        """The same faces with other pixels."""
        return replace(self, crops=crops)

    def take(self, index: IntArray | npt.NDArray[np.bool_]) -> FaceSet:
        """The faces of an index or mask, in its order."""
        chosen = np.arange(len(self))[index]
        return replace(
            self,
            files=tuple(self.files[i] for i in chosen),
            crops=self.crops[chosen],
            folder_labels=self.folder_labels[chosen],
            targets=self.targets[chosen],
            weights=self.weights[chosen],
            votes=None if self.votes is None else self.votes[chosen],
        )


def find_layout(data: Path, needed: Sequence[Split] = SPLITS) -> Layout:
    """Recognise a data set's folder; raises ``DataError`` with what is missing."""
    if not data.is_dir():
        raise DataError(f"{data} is no folder. Give the folder of the data set.")
    # A link's or a dot's parent is not where the annotations lie.
    data = data.resolve()
    around = data / IMAGE_FOLDER
    images = around if around.is_dir() else data
    missing = [split for split in needed if not (images / split).is_dir()]
    if missing:
        raise DataError(
            f"{images} has no folder {', '.join(missing)}. A data set has the folders "
            f"{', '.join(SPLITS)}, each with {', '.join(EMOTIONS)}."
        )
    base = data
    # Its own come first: those around it may be of another data set.
    if (
        images == data
        and not (data / ANNOTATIONS_FILE).is_file()
        and (data.parent / ANNOTATIONS_FILE).is_file()
    ):
        base = data.parent
    annotations = base / ANNOTATIONS_FILE
    others = base / OTHERS_FOLDER
    return Layout(
        base=base,
        images=images,
        others=others if others.is_dir() else None,
        annotations=annotations if annotations.is_file() else None,
    )


def read_annotations(path: Path) -> dict[str, tuple[int, ...]]:
    """File name relative to ``path``'s folder -> votes in ``VOTE_COLUMNS`` order.

    Files on which nobody voted are left out. Raises ``DataError`` with the line that
    cannot be read.
    """
    columns = [f"votes_{word}" for word in VOTE_COLUMNS]
    votes: dict[str, tuple[int, ...]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            rows = csv.DictReader(handle)
            missing = {"file", *columns} - set(rows.fieldnames or ())
            if missing:
                raise DataError(
                    f"{path} has no column {', '.join(sorted(missing))}. Commas part "
                    "the columns. Mend the file, or move it away to go by the folders."
                )
            for row in rows:
                try:
                    counts = tuple(int(row[column]) for column in columns)
                except (TypeError, ValueError) as error:
                    raise DataError(
                        f"{path}, line {rows.line_num}: votes must be whole numbers."
                    ) from error
                if min(counts) < 0 or max(counts) > MAX_VOTES:
                    raise DataError(
                        f"{path}, line {rows.line_num}: votes cannot be negative, or "
                        f"more than {MAX_VOTES}."
                    )
                if votes.setdefault(row["file"], counts) != counts:
                    _refuse_twice(row["file"], path, rows.line_num)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not in UTF-8. Save it as such.") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return {file: counts for file, counts in votes.items() if any(counts)}


def _refuse_twice(file: str, path: Path, line: int) -> NoReturn:
    """Of two rows on one file one would count, and nobody knows which."""
    raise DataError(
        f"{path}, line {line}: what it says of {file} is not what a line above says. "
        "Leave one row a file."
    )


def list_files(folder: Path) -> list[Path]:
    """All that should be a file below ``folder``, hidden ones left out, in name order.

    Links that lead nowhere or to another folder, and what is no regular file, are
    among them: whoever opens them says what they are. Raises ``DataError`` where a
    folder may not be read.
    """

    def refuse(error: OSError) -> None:
        raise DataError(
            f"{error.filename} cannot be read: {error.strerror}. Change its "
            "permissions, or move it away."
        ) from error

    found: list[Path] = []
    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        here = Path(place)
        linked = [name for name in folders if (here / name).is_symlink()]
        found += [here / name for name in (*files, *linked) if not name.startswith(".")]
    return sorted(found)


def files_of_split(
    layout: Layout, split: Split, with_others: bool = False
) -> Iterator[tuple[Path, int]]:
    """(path, folder label) of a split; others carry ``NO_LABEL``.

    Raises ``DataError`` where a class has no folder or no file.
    """
    for emotion in EMOTIONS:
        folder = layout.images / split / emotion.value
        if not folder.is_dir():
            raise DataError(
                f"{layout.images / split} has no folder {emotion.value!r}. Each split "
                f"needs {', '.join(EMOTIONS)}."
            )
        files = list_files(folder)
        if not files:
            raise DataError(f"{folder} holds no file. Put pictures of faces there.")
        for path in files:
            yield path, emotion.position
    if with_others and layout.others is not None:
        others = layout.others / split
        if others.is_dir():
            for path in list_files(others):
                yield path, NO_LABEL


def name_of(path: Path, layout: Layout) -> str:
    """The file as annotations and manifests name it."""
    return path.relative_to(layout.base).as_posix()


def load_face(path: Path, spec: InputSpec) -> UInt8Array:
    """One file, taken as one face: uint8 (S, S, C). Raises ``ImageRefused``."""
    try:
        data = read_file(path)
    except OSError as error:
        raise ImageRefused(f"The file cannot be read: {error}.") from error
    photo = decode_image(data).pixels
    return np.asarray(crop_faces(photo, [whole_picture(photo)], spec)[0])


def load_split(
    layout: Layout,
    split: Split,
    spec: InputSpec,
    *,
    source: LabelSource = "consensus",
    with_others: bool = False,
    progress: Progress | None = None,
) -> FaceSet:
    """Read a split into memory.

    ``source`` decides the targets: the folders' names, one-hot, (N, 4); or the
    shares of the votes, (N, 10), where there are annotations; by the folders, those
    that cannot be read are as none. Files that are no picture are left out and listed
    in ``unreadable``. Raises ``DataError``.
    """
    votes_by_file = _votes_by_file(layout, source)
    # A face filed under another emotion says something only where people voted on it.
    with_others = with_others and source == "consensus"
    listed = [
        (path, label)
        for path, label in files_of_split(layout, split, with_others)
        if label != NO_LABEL or name_of(path, layout) in votes_by_file
    ]
    advance = progress(f"Reading {split}", len(listed)) if progress else None
    shape = (len(listed), spec.size_px, spec.size_px, spec.channels)
    crops = np.empty(shape, np.uint8)
    names: list[str] = []
    labels: list[int] = []
    unreadable: list[tuple[str, str]] = []
    for path, label in listed:
        name = name_of(path, layout)
        try:
            crops[len(names)] = load_face(path, spec)
            names.append(name)
            labels.append(label)
        except ImageRefused as error:
            unreadable.append((name, str(error)))
        if advance:
            advance()
    if not names:
        raise DataError(
            f"None of the {len(listed)} files of {split} is a picture that can be "
            f"read; the first: {unreadable[0][1]}"
        )
    votes = _votes_of(names, labels, votes_by_file)
    folder_labels = np.array(labels, np.int64)
    return FaceSet(
        files=tuple(names),
        crops=crops[: len(names)],
        folder_labels=folder_labels,
        targets=make_targets(folder_labels, votes, source),
        weights=np.ones(len(names), np.float32),
        votes=votes,
        unreadable=tuple(unreadable),
    )


def make_targets(
    folder_labels: IntArray, votes: IntArray | None, source: LabelSource
) -> Float32Array:
    """What training aims at: one-hot (N, 4), or shares of the votes (N, 10).

    Raises ``ValueError`` where a face has neither a label nor a vote.
    """
    if source == "folder":
        votes = None
    nothing = folder_labels == NO_LABEL
    if votes is not None:
        nothing &= votes.sum(axis=1) == 0
    if nothing.any():
        raise ValueError(
            f"{int(nothing.sum())} faces have neither a label nor a vote to aim at"
        )
    if votes is not None:
        return soft_labels(votes)
    return np.eye(len(EMOTIONS), dtype=np.float32)[folder_labels]


def without_near_duplicates(train: FaceSet, held_out: Sequence[FaceSet]) -> FaceSet:
    """``train`` less the faces that nearly are a face of validation or test."""
    keep = np.ones(len(train), bool)
    for faces in held_out:
        keep &= ~resembles(train.crops, faces.crops)
    return train.take(keep)


def load_for_training(
    layout: Layout,
    spec: InputSpec,
    *,
    source: LabelSource = "consensus",
    with_others: bool = True,
    manifest: Path | None = None,
    progress: Progress | None = None,
) -> tuple[FaceSet, FaceSet]:
    """(train, validation), train without near-duplicates of what judges it.

    Of the test pictures nothing is used but that. ``manifest``, made by cleaning,
    decides instead which faces of train count, with which target and weight.
    Raises ``DataError``.
    """
    # What is wrong with it is said before minutes of reading.
    rows = read_cleaned(manifest) if manifest is not None else None
    train = load_split(
        layout,
        "train",
        spec,
        source=source,
        with_others=with_others,
        progress=progress,
    )
    # The others judge nothing, but nothing that resembles them need train either.
    held_out = [
        load_split(
            layout,
            split,
            spec,
            source=source,
            with_others=with_others,
            progress=progress,
        )
        for split in SPLITS[1:]
    ]
    validation = held_out[0].take(held_out[0].folder_labels != NO_LABEL)
    if rows is not None:
        train = apply_manifest(train, rows)
    return without_near_duplicates(train, held_out), validation


@dataclass(frozen=True, slots=True)
class CleanedRow:
    """What cleaning decided on one file: shares of the four emotions (they sum to
    1), how much the face counts (0: not at all), and why."""

    file: str
    split: str
    shares: tuple[float, ...]
    weight: float
    reason: str


CLEANED_COLUMNS: Final = ("file", "split", *EMOTIONS, "weight", "reason")


def read_cleaned(path: Path) -> dict[str, CleanedRow]:
    """A cleaned manifest by file; raises ``DataError`` with the line."""
    rows: dict[str, CleanedRow] = {}
    try:
        # As it was written: file names may be older than UTF-8.
        with path.open(
            encoding="utf-8-sig", errors="surrogateescape", newline=""
        ) as handle:
            reader = csv.DictReader(handle)
            missing = set(CLEANED_COLUMNS) - set(reader.fieldnames or ())
            if missing:
                raise DataError(f"{path} has no column {', '.join(sorted(missing))}.")
            for raw in reader:
                try:
                    shares = tuple(float(raw[emotion]) for emotion in EMOTIONS)
                    weight = float(raw["weight"])
                except (TypeError, ValueError) as error:
                    raise DataError(
                        f"{path}, line {reader.line_num}: shares and weight must be "
                        "numbers."
                    ) from error
                if not (min(shares) >= 0 and abs(sum(shares) - 1) < 0.01):
                    raise DataError(
                        f"{path}, line {reader.line_num}: shares must sum to 1, and "
                        "nothing may be negative."
                    )
                if not 0 <= weight <= MAX_WEIGHT:
                    raise DataError(
                        f"{path}, line {reader.line_num}: the weight must lie between "
                        f"0 and {MAX_WEIGHT}."
                    )
                row = CleanedRow(
                    raw["file"], raw["split"], shares, weight, raw["reason"]
                )
                if rows.setdefault(row.file, row) != row:
                    _refuse_twice(row.file, path, reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return rows


def apply_manifest(faces: FaceSet, rows: dict[str, CleanedRow]) -> FaceSet:
    """The faces that a cleaned manifest keeps, with its targets (N, 4) and weights."""
    keep = [
        index
        for index, file in enumerate(faces.files)
        if file in rows and rows[file].weight > 0
    ]
    if not keep:
        raise DataError(
            "The cleaned manifest keeps none of the files of train. Was it made from "
            "this folder?"
        )
    chosen = faces.take(np.array(keep, np.int64))
    kept = [rows[file] for file in chosen.files]
    return replace(
        chosen,
        targets=np.array([row.shares for row in kept], np.float32),
        weights=np.array([row.weight for row in kept], np.float32),
    )


def counts_by_emotion(labels: IntArray) -> dict[Emotion, int]:
    return {emotion: int((labels == emotion.position).sum()) for emotion in EMOTIONS}


def _votes_by_file(layout: Layout, source: LabelSource) -> dict[str, tuple[int, ...]]:
    if layout.annotations is None:
        return {}
    try:
        return read_annotations(layout.annotations)
    except DataError:
        # Votes that were not asked for stop nothing.
        if source == "folder":
            return {}
        raise


def _votes_of(
    names: Sequence[str],
    labels: Sequence[int],
    votes_by_file: dict[str, tuple[int, ...]],
) -> IntArray | None:
    """Votes of the named files; where a file has none, its folder votes once."""
    if not any(name in votes_by_file for name in names):
        return None
    votes = np.zeros((len(names), len(VOTE_COLUMNS)), np.int64)
    for row, (name, label) in enumerate(zip(names, labels, strict=True)):
        if name in votes_by_file:
            votes[row] = votes_by_file[name]
        elif label != NO_LABEL:
            votes[row, label] = 1
    return votes
