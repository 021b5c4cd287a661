from __future__ import annotations

import csv
import hashlib
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ml.cleaning import clean
from ml.cleaning_report import write_cleaning
from ml.consensus import NO_LABEL
from ml.data import Layout, find_layout, load_for_training
from ml.detection import FaceDetector
from ml.findings import CleaningResult, Kind
from ml.inference import EmotionClassifier
from ml.labels import EMOTIONS, Emotion
from ml.manifest import InputSpec
from ml.tests.faces import ballots_for, write_annotations, write_dataset
from tests.pictures import encode


@pytest.fixture(scope="module")
def classifier() -> EmotionClassifier:
    return EmotionClassifier.load()


def _files(result: CleaningResult, kind: Kind) -> set[str]:
    return {finding.file for finding in result.findings if finding.finding is kind}


def _weights(result: CleaningResult) -> dict[str, float]:
    return {row.file: row.weight for row in result.rows}


def _chunk(name: bytes, data: bytes) -> bytes:
    """Of a PNG."""
    check = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)


@pytest.fixture
def messy(tmp_path: Path) -> Layout:
    """Drawn faces, and one of everything that is wrong."""
    root = write_dataset(tmp_path / "data", 4)
    sad = root / "train" / "sad"
    (sad / "cut.jpg").write_bytes(encode(Image.new("L", (48, 48), 9), "JPEG")[:150])
    (sad / "empty.png").write_bytes(b"")
    (sad / "notes.txt").write_text("no picture")
    (sad / "called.jpg").write_bytes((sad / "000.png").read_bytes())
    Image.new("L", (48, 48), 128).save(sad / "flat.png")
    copied = (root / "test" / "happy" / "000.png").read_bytes()
    (root / "train" / "happy" / "leak.png").write_bytes(copied)
    (root / "train" / "neutral" / "other.png").write_bytes(
        (root / "train" / "surprise" / "001.png").read_bytes()
    )
    noise = np.random.default_rng(0).integers(0, 255, (48, 48), np.uint8)
    Image.fromarray(noise).save(root / "train" / "neutral" / "noise.png")
    # Its header says 30,000 by 30,000 pixels; there are none.
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    (sad / "huge.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", b"")
    )
    (sad / "nowhere.png").symlink_to(tmp_path / "nowhere")
    (sad / "folder").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(sad / "pipe.png")
    surprise = root / "train" / "surprise"
    Image.open(surprise / "000.png").save(surprise / "sound.jfif", "JPEG")
    return find_layout(root)


def test_each_kind_of_mess_is_found_and_weighed(
    messy: Layout, classifier: EmotionClassifier
) -> None:
    result = clean(messy, classifier, FaceDetector(), judge="model")
    weights = _weights(result)
    assert _files(result, Kind.UNREADABLE) == {
        "train/sad/cut.jpg",
        "train/sad/empty.png",
        "train/sad/huge.png",
        "train/sad/nowhere.png",
        "train/sad/folder",
        "train/sad/pipe.png",
    }
    (huge,) = [one for one in result.findings if one.file.endswith("huge.png")]
    assert "megapixels" in huge.detail
    assert _files(result, Kind.WRONG_FORMAT) == {
        "train/sad/notes.txt",
        "train/sad/called.jpg",
    }
    assert _files(result, Kind.FLAT) == {"train/sad/flat.png"}
    assert "train/neutral/noise.png" in _files(result, Kind.NO_FACE)
    assert {"train/happy/leak.png", "test/happy/000.png"} <= _files(
        result, Kind.EXACT_DUPLICATE
    )
    assert _files(result, Kind.CONTRADICTING_DUPLICATE) == {
        "train/neutral/other.png",
        "train/surprise/001.png",
    }
    for name in ("cut.jpg", "empty.png", "notes.txt", "flat.png"):
        assert weights[f"train/sad/{name}"] == 0
    assert weights["train/happy/leak.png"] == 0
    assert weights["test/happy/000.png"] == 1
    pair = [weights["train/neutral/other.png"], weights["train/surprise/001.png"]]
    assert sorted(pair) == [0, 1]


def test_nothing_of_the_users_is_touched_and_the_manifest_trains(
    messy: Layout, classifier: EmotionClassifier, tmp_path: Path
) -> None:
    def digest() -> dict[str, str]:
        return {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in messy.images.rglob("*")
            if path.is_file()
        }

    before = digest()
    result = clean(messy, classifier, None, judge="model")
    out = tmp_path / "out"
    write_cleaning(out, result)
    assert digest() == before
    listed = json.loads((out / "report.json").read_text())
    assert all(set(row) == {"file", "finding", "detail"} for row in listed)
    assert "No file was changed" in (out / "report.md").read_text()
    assert "The model itself judged" in (out / "report.md").read_text()
    page = (out / "gallery.html").read_text()
    assert "data:image/png;base64," in page
    with (out / "cleaned.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 4 * 3 * 4 + 13
    train, _ = load_for_training(messy, InputSpec(), manifest=out / "cleaned.csv")
    assert set(train.files) == {
        row["file"]
        for row in rows
        if row["split"] == "train" and float(row["weight"]) > 0
    }
    assert train.targets.shape[1] == len(EMOTIONS)


def test_label_that_nobody_voted_for_is_not_mixed_into_its_duplicate(
    tmp_path: Path, classifier: EmotionClassifier
) -> None:
    write_dataset(tmp_path)
    happy, copy = tmp_path / "train/happy/000.png", tmp_path / "train/sad/copy.png"
    copy.write_bytes(happy.read_bytes())
    write_annotations(
        tmp_path,
        {
            "train/happy/000.png": ballots_for(Emotion.HAPPY.position, 10),
            "train/sad/copy.png": ballots_for(NO_LABEL),
        },
    )
    rows = {
        row.file: row
        for row in clean(find_layout(tmp_path), classifier, None, judge="model").rows
    }
    kept = rows["train/happy/000.png"]
    assert (kept.shares[Emotion.HAPPY.position], kept.weight) == (1, 1)
    assert rows["train/sad/copy.png"].weight == 0


def test_copy_that_people_voted_on_is_kept_and_its_votes_alone_count(
    tmp_path: Path, classifier: EmotionClassifier
) -> None:
    write_dataset(tmp_path, 2)
    voted = {
        "train/sad/votes.png": ballots_for(Emotion.SAD.position, 10),
        "train/happy/votes.png": ballots_for(Emotion.NEUTRAL.position, 10),
        # Most people see none of the four.
        "train/surprise/votes.png": ballots_for(NO_LABEL),
    }
    unvoted = ("train/sad/000.png", "train/happy/000.png", "train/surprise/000.png")
    for copy, first in zip(voted, unvoted, strict=True):
        (tmp_path / copy).write_bytes((tmp_path / first).read_bytes())
    # Filed under another label, on which nobody voted either.
    contradicting = tmp_path / "train/neutral/copy.png"
    contradicting.write_bytes((tmp_path / "train/sad/000.png").read_bytes())
    write_annotations(tmp_path, voted)

    result = clean(find_layout(tmp_path), classifier, None, judge="model")

    rows = {row.file: row for row in result.rows}
    for file in (*unvoted, "train/neutral/copy.png"):
        assert rows[file].weight == 0
        assert "duplicate of train/" in rows[file].reason
        assert rows[file].reason.endswith("/votes.png")
    weights = [rows[file].weight for file in voted]
    assert weights == [1, 1, 0]
    assert rows["train/sad/votes.png"].shares[Emotion.SAD.position] == 1
    assert rows["train/happy/votes.png"].shares[Emotion.NEUTRAL.position] == 1
    assert rows["train/surprise/votes.png"].reason == "votes_elsewhere"


def test_of_many_copies_a_few_are_named_leaks_first(
    tmp_path: Path, classifier: EmotionClassifier
) -> None:
    root = write_dataset(tmp_path, 4)
    original = (root / "train" / "sad" / "000.png").read_bytes()
    for number in range(300):
        (root / "train" / "sad" / f"copy{number:03}.png").write_bytes(original)
    (root / "test" / "happy" / "leak.png").write_bytes(original)
    result = clean(find_layout(root), classifier, None, judge="folds")
    told = [f.detail for f in result.findings if f.file == "train/sad/copy299.png"]
    assert told[:2] == [
        "test/happy/leak.png is filed under happy",
        "test/happy/leak.png: same pixels, across splits",
    ]
    assert told[-1].endswith(": same pixels; and 296 more")
    assert len(_files(result, Kind.EXACT_DUPLICATE)) == 302
    assert len(result.findings) < 302 * 8
    weights = _weights(result)
    assert weights["test/happy/leak.png"] == 1
    assert not any(weight for file, weight in weights.items() if "copy" in file)
