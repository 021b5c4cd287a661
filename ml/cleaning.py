"""A messy folder of faces -> what is wrong with it, and a manifest without it.

Finds files that are no usable picture, pictures that are flat or show no face,
duplicates, and labels that are probably wrong (``ml.suspicion``). The user's files
are read and never written.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from ml.consensus import VOTE_COLUMNS
from ml.data import (
    CLEANED_COLUMNS,
    SPLITS,
    CleanedRow,
    DataError,
    FaceSet,
    Layout,
    Progress,
    Split,
    files_of_split,
    name_of,
)
from ml.detection import FaceDetector
from ml.duplicates import Groups, near_duplicates, thumbnails
from ml.findings import CleaningResult, Finding, Judge, Kind
from ml.images import (
    FORMATS,
    ImageRefused,
    ImageTooLarge,
    decode_image,
    read_file,
    read_header,
)
from ml.inference import EmotionClassifier
from ml.labels import EMOTIONS
from ml.manifest import write_atomically
from ml.preprocessing import crop_faces, whole_picture
from ml.suspicion import (
    enough_for_folds,
    enough_to_judge,
    expected_answers,
    judge_by_votes,
    judge_labels,
    votes_of,
)

UInt8Array = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Float64Array = npt.NDArray[np.float64]

FLAT_STD: Final = 5.0
"""Grey levels; 14 pictures of a well-known set of 35,887 lie under it."""

_NAMED: Final = 5
"""Of so many others that are the same a finding tells, leaks first: a folder of
copies has millions of pairs."""

_SUFFIXES: Final = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".jfi"), ("JPEG", "MPO")),
    ".png": ("PNG",),
    ".webp": ("WEBP",),
    ".avif": ("AVIF",),
    ".heic": ("HEIF",),
    ".heif": ("HEIF",),
}


@dataclass(slots=True)
class _Scan:
    files: list[str] = field(default_factory=list)
    splits: list[Split] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    crops: list[UInt8Array] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    flat: list[int] = field(default_factory=list)
    no_face: list[int] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    left_out: list[CleanedRow] = field(default_factory=list)


def clean(
    layout: Layout,
    classifier: EmotionClassifier,
    detector: FaceDetector | None,
    *,
    judge: Judge,
    use_votes: bool = True,
    progress: Progress | None = None,
) -> CleaningResult:
    """Look at every file of the splits' four folders.

    A label that people voted on is judged by their votes, any other by ``judge``; by
    the model where too few are left for folds, by nobody where one of the emotions is
    not among them. Without a detector nobody looks for faces. Raises ``DataError``
    where no file can be read.
    """
    scan = _scan(layout, classifier, detector, progress)
    if not scan.files:
        raise DataError(f"{layout.images} holds no picture that can be read.")
    labels = np.array(scan.labels, np.int64)
    crops = np.stack(scan.crops)
    scan.crops.clear()
    votes = votes_of(layout, scan.files) if use_votes else None
    groups = _duplicates(scan, crops, labels, progress)
    suspicion = np.full(len(labels), np.nan)
    shares = np.eye(len(EMOTIONS))[labels]
    weights = np.ones(len(labels))
    reasons: dict[int, list[str]] = defaultdict(list)
    voted = np.zeros(len(labels), bool)
    if votes is not None:
        scan.findings += judge_by_votes(
            scan.files, labels, votes, shares, weights, reasons
        )
        voted = votes.sum(axis=1) > 0
    unvoted = np.flatnonzero(~voted)
    own, apart = labels[unvoted], np.array(groups)[unvoted]
    judged_by: Judge | None = None
    if enough_to_judge(own):
        judged_by = judge if enough_for_folds(own, apart) else "model"
        probabilities = expected_answers(
            classifier,
            # All of them are too many to copy for nothing.
            crops if votes is None else crops[unvoted],
            own,
            apart,
            judged_by,
            progress,
        )
        suspicion[unvoted] = 1 - probabilities[np.arange(len(own)), own]
        scan.findings += judge_labels(
            scan.files, labels, unvoted, probabilities, shares, reasons
        )
    _drop(scan, votes, weights, reasons)
    _merge_duplicates(scan, labels, voted, groups, shares, weights, reasons)
    rows = scan.left_out + [
        CleanedRow(
            file,
            scan.splits[i],
            tuple(float(value) for value in shares[i]),
            float(weights[i]),
            "; ".join(reasons[i]),
        )
        for i, file in enumerate(scan.files)
    ]
    faces = FaceSet(
        files=tuple(scan.files),
        crops=crops,
        folder_labels=labels,
        targets=shares.astype(np.float32),
        weights=weights.astype(np.float32),
        votes=votes,
    )
    return CleaningResult(
        sorted(scan.findings, key=lambda finding: (finding.finding, finding.file)),
        sorted(rows, key=lambda row: row.file),
        faces,
        tuple(scan.splits),
        suspicion,
        judged_by,
    )


def cleaned_csv(rows: Sequence[CleanedRow]) -> bytes:
    """The manifest that ``python -m ml train --manifest`` takes."""
    buffer = io.StringIO()
    # Else a lone carriage return in a name would end its row.
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(CLEANED_COLUMNS)
    for row in rows:
        shares = [f"{share:.4f}" for share in row.shares]
        writer.writerow([row.file, row.split, *shares, f"{row.weight:g}", row.reason])
    return buffer.getvalue().encode(errors="surrogateescape")


def write_cleaned(path: Path, rows: Sequence[CleanedRow]) -> None:
    write_atomically(path, cleaned_csv(rows))


def _scan(
    layout: Layout,
    classifier: EmotionClassifier,
    detector: FaceDetector | None,
    progress: Progress | None,
) -> _Scan:
    scan = _Scan()
    listed = [
        (split, path, label)
        for split in SPLITS
        for path, label in files_of_split(layout, split)
    ]
    advance = progress("Looking at files", len(listed)) if progress else None
    for split, path, label in listed:
        _look_at(scan, name_of(path, layout), split, path, label, classifier, detector)
        if advance:
            advance()
    return scan


def _look_at(
    scan: _Scan,
    name: str,
    split: Split,
    path: Path,
    label: int,
    classifier: EmotionClassifier,
    detector: FaceDetector | None,
) -> None:
    def leave_out(kind: Kind, detail: str) -> None:
        scan.findings.append(Finding(name, kind, detail))
        shares = tuple(float(i == label) for i in range(len(EMOTIONS)))
        scan.left_out.append(CleanedRow(name, split, shares, 0.0, kind.value))

    try:
        data = read_file(path)
    except OSError as error:
        leave_out(Kind.UNREADABLE, error.strerror or str(error))
        return
    header = read_header(data)
    try:
        photo = decode_image(data).pixels
    except ImageRefused as error:
        if (
            data
            and header is None
            and not (isinstance(error, ImageTooLarge) or _looks_cut(data))
        ):
            leave_out(Kind.WRONG_FORMAT, f"no picture of {', '.join(FORMATS)}")
        else:
            leave_out(Kind.UNREADABLE, f"{error.code}: {error}")
        return
    suffix = path.suffix.lower()
    if header and header.format not in _SUFFIXES.get(suffix, ()):
        detail = f"{header.format} under a name that ends in {suffix or 'nothing'}"
        scan.findings.append(Finding(name, Kind.WRONG_FORMAT, detail))
    crop = crop_faces(photo, [whole_picture(photo)], classifier.manifest.input)[0]
    scan.files.append(name)
    scan.splits.append(split)
    scan.labels.append(label)
    scan.crops.append(crop)
    scan.digests.append(_digest(photo))
    deviation = float(crop.std())
    if deviation < FLAT_STD:
        scan.flat.append(len(scan.files) - 1)
        detail = f"grey levels deviate by {deviation:.1f}"
        scan.findings.append(Finding(name, Kind.FLAT, detail))
    elif detector is not None:
        faces = detector.detect(photo).faces
        if not faces or faces[0].assumed:
            scan.no_face.append(len(scan.files) - 1)
            detail = "the detector found none at any scale"
            scan.findings.append(Finding(name, Kind.NO_FACE, detail))


def _looks_cut(data: bytes) -> bool:
    """Begins as a picture of a known kind does, yet cannot be opened."""
    starts = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF")
    return data.startswith(starts) or data[4:8] == b"ftyp"


def _digest(photo: Image.Image) -> str:
    pixels = f"{photo.size}".encode() + photo.tobytes()
    return hashlib.sha256(pixels).hexdigest()


def _duplicates(
    scan: _Scan, crops: UInt8Array, labels: IntArray, progress: Progress | None
) -> list[int]:
    """Findings of all that have any; returns the group of each face (its first
    member)."""
    advance = progress("Comparing pictures", len(labels)) if progress else None
    groups = Groups(len(labels))
    # Numbers compare faster than digests do.
    pixels = np.unique(scan.digests, return_inverse=True)[1]
    splits = np.array([SPLITS.index(split) for split in scan.splits])
    near = near_duplicates(thumbnails(crops), advance=advance)
    for i, others, differences in near:
        groups.join(i, others)
        exact = pixels[others] == pixels[i]
        for kind, chosen in (
            (Kind.EXACT_DUPLICATE, exact),
            (Kind.NEAR_DUPLICATE, ~exact),
            (Kind.CONTRADICTING_DUPLICATE, labels[others] != labels[i]),
        ):
            leaking = chosen & (splits[others] != splits[i])
            named = [
                *np.flatnonzero(leaking)[:_NAMED].tolist(),
                *np.flatnonzero(chosen & ~leaking)[:_NAMED].tolist(),
            ][:_NAMED]
            more = int(chosen.sum()) - len(named)
            for place, k in enumerate(named, start=1):
                detail = _resemblance(
                    scan, labels, kind, i, int(others[k]), float(differences[k])
                )
                if more and place == len(named):
                    detail += f"; and {more} more"
                scan.findings.append(Finding(scan.files[i], kind, detail))
    return groups.firsts()


def _resemblance(
    scan: _Scan, labels: IntArray, kind: Kind, i: int, j: int, difference: float
) -> str:
    other = scan.files[j]
    if kind is Kind.CONTRADICTING_DUPLICATE:
        return f"{other} is filed under {EMOTIONS[labels[j]]}"
    across = "" if scan.splits[i] == scan.splits[j] else ", across splits"
    if kind is Kind.EXACT_DUPLICATE:
        return f"{other}: same pixels{across}"
    return f"{other}: differs by {difference:.2f} grey levels{across}"


def _drop(
    scan: _Scan,
    votes: IntArray | None,
    weights: Float64Array,
    reasons: dict[int, list[str]],
) -> None:
    """Flat pictures go; faceless ones where people did not see a face either."""
    for i in scan.flat:
        weights[i] = 0.0
        reasons[i].append(Kind.FLAT.value)
    if votes is None:
        return
    faceless = votes[:, VOTE_COLUMNS.index("not_a_face")]
    for i in scan.no_face:
        if faceless[i]:
            weights[i] = 0.0
            reasons[i].append(Kind.NO_FACE.value)


def _merge_duplicates(
    scan: _Scan,
    labels: IntArray,
    voted: BoolArray,
    groups: list[int],
    shares: Float64Array,
    weights: Float64Array,
    reasons: dict[int, list[str]],
) -> None:
    """One of each group stays, in the split that must not leak: test before
    validation before train. Where people voted on a face, its copies in that split on
    which nobody did say nothing."""
    members: dict[int, list[int]] = defaultdict(list)
    for i, first in enumerate(groups):
        members[first].append(i)
    rank = {split: place for place, split in enumerate(reversed(SPLITS))}
    for group in members.values():
        if len(group) < 2:
            continue
        known = {scan.splits[i] for i in group if voted[i]}
        for i in group:
            if not voted[i] and scan.splits[i] in known:
                weights[i] = 0.0
        group.sort(
            key=lambda i: (weights[i] == 0, rank[scan.splits[i]], not voted[i], i)
        )
        kept, others = group[0], group[1:]
        # Of a face that is left out for itself the label says nothing.
        heard = [i for i in group if weights[i] and scan.splits[i] == scan.splits[kept]]
        if len({int(labels[i]) for i in heard}) > 1:
            shares[kept] = shares[heard].mean(axis=0)
            reasons[kept].append(Kind.CONTRADICTING_DUPLICATE.value)
        for i in others:
            weights[i] = 0.0
            reasons[i].append(f"duplicate of {scan.files[kept]}")
