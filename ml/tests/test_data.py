from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from ml import gallery
from ml.cleaning import write_cleaned
from ml.consensus import NO_LABEL, VOTE_COLUMNS
from ml.data import (
    CleanedRow,
    DataError,
    LabelSource,
    apply_manifest,
    find_layout,
    list_files,
    load_for_training,
    load_split,
    make_targets,
    read_annotations,
    read_cleaned,
)
from ml.labels import EMOTIONS, Emotion
from ml.manifest import InputSpec
from ml.tests.faces import ballots_for, draw_face, write_annotations, write_dataset

SPEC = InputSpec()


def test_folder_with_the_splits_is_recognised_directly(tmp_path: Path) -> None:
    layout = find_layout(write_dataset(tmp_path / "data"))
    assert layout.images == tmp_path / "data"
    assert layout.annotations is None
    faces = load_split(layout, "test", SPEC)
    assert faces.crops.shape == (12, 48, 48, 1)
    assert np.bincount(faces.folder_labels).tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize("inner", [False, True])
def test_annotations_are_found_beside_or_around_the_pictures(
    tmp_path: Path, inner: bool
) -> None:
    images = write_dataset(tmp_path / "facial_emotion_images")
    name = "facial_emotion_images/train/sad/000.png"
    write_annotations(tmp_path, {name: ballots_for(Emotion.NEUTRAL.position)})
    layout = find_layout(images if inner else tmp_path)
    faces = load_split(layout, "train", SPEC)
    assert faces.votes is not None
    row = faces.files.index(name)
    assert faces.folder_labels[row] == Emotion.SAD.position
    assert faces.consensus[row] == Emotion.NEUTRAL.position
    assert faces.targets[row, Emotion.NEUTRAL.position] == pytest.approx(0.8)
    assert faces.targets.shape[1] == len(VOTE_COLUMNS)


def test_file_without_votes_keeps_its_folders_label(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    write_annotations(tmp_path, {"train/sad/000.png": ballots_for(0)})
    faces = load_split(find_layout(tmp_path), "train", SPEC)
    row = faces.files.index("train/sad/001.png")
    assert faces.consensus[row] == Emotion.SAD.position


def test_other_expressions_join_training_only_with_votes(tmp_path: Path) -> None:
    write_dataset(tmp_path / "facial_emotion_images")
    angry = tmp_path / "other_expressions" / "train" / "angry"
    angry.mkdir(parents=True)
    generator = np.random.default_rng(1)
    for name in ("a.png", "nobody_voted.png", "voted_by_none.png"):
        draw_face(Emotion.NEUTRAL, generator).save(angry / name)
    layout = find_layout(tmp_path)
    assert len(load_split(layout, "train", SPEC, with_others=True)) == 12
    name = "other_expressions/train/angry/a.png"
    votes = {
        name: ballots_for(Emotion.NEUTRAL.position, 9),
        "other_expressions/train/angry/voted_by_none.png": (0,) * len(VOTE_COLUMNS),
    }
    backslashes = {file.replace("/", "\\"): row for file, row in votes.items()}
    write_annotations(tmp_path, backslashes)
    layout = find_layout(tmp_path)
    assert len(load_split(layout, "train", SPEC, with_others=True)) == 12
    write_annotations(tmp_path, votes)
    faces = load_split(layout, "train", SPEC, with_others=True)
    assert len(faces) == 13
    row = faces.files.index(name)
    assert faces.folder_labels[row] == NO_LABEL
    assert faces.consensus[row] == Emotion.NEUTRAL.position
    by_folder = load_split(layout, "train", SPEC, source="folder", with_others=True)
    assert len(by_folder) == 12


def test_row_without_a_vote_leaves_the_folder_its_say(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    nobody = (0,) * len(VOTE_COLUMNS)
    write_annotations(
        tmp_path,
        {"train/sad/000.png": nobody, "train/sad/001.png": ballots_for(0)},
    )
    faces = load_split(find_layout(tmp_path), "train", SPEC)
    row = faces.files.index("train/sad/000.png")
    assert faces.consensus[row] == Emotion.SAD.position
    assert faces.targets[row, Emotion.SAD.position] == 1


def test_annotations_of_the_data_set_itself_come_before_those_around_it(
    tmp_path: Path,
) -> None:
    root = write_dataset(tmp_path / "data")
    write_annotations(tmp_path, {"elsewhere.png": ballots_for(0)})
    assert find_layout(root).annotations == tmp_path / "annotations.csv"
    write_annotations(root, {"train/sad/000.png": ballots_for(0)})
    layout = find_layout(root)
    assert (layout.base, layout.annotations) == (root, root / "annotations.csv")


def test_votes_that_cannot_be_read_stop_nothing_that_goes_by_the_folders(
    tmp_path: Path,
) -> None:
    root = write_dataset(tmp_path)
    (root / "annotations.csv").write_text("file;votes_happiness\n")
    layout = find_layout(root)
    faces = load_split(layout, "train", SPEC, source="folder")
    assert (len(faces), faces.votes) == (12, None)
    with pytest.raises(DataError, match="Commas part the columns"):
        load_split(layout, "train", SPEC)


def test_wrong_manifest_is_named_before_a_picture_is_read(tmp_path: Path) -> None:
    layout = find_layout(write_dataset(tmp_path / "data"))
    started: list[str] = []

    def progress(title: str, total: int) -> Callable[[], None]:
        started.append(title)
        return lambda: None

    with pytest.raises(DataError, match=r"typo\.csv cannot be read"):
        load_for_training(
            layout, SPEC, manifest=tmp_path / "typo.csv", progress=progress
        )
    assert started == []


def test_near_duplicate_of_a_test_face_leaves_train(tmp_path: Path) -> None:
    write_dataset(tmp_path, 4)
    copied = Image.open(tmp_path / "test" / "happy" / "000.png")
    pixels = np.asarray(copied).astype(np.int64)
    Image.fromarray((pixels // 2 * 2).astype(np.uint8)).save(
        tmp_path / "train" / "happy" / "copy.png"
    )
    train, validation = load_for_training(find_layout(tmp_path), SPEC)
    assert "train/happy/copy.png" not in train.files
    assert "train/happy/000.png" in train.files
    assert len(validation) == 16


def test_unreadable_files_are_listed_not_fatal(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    (tmp_path / "train" / "sad" / "broken.jpg").write_bytes(b"\xff\xd8\xff no")
    (tmp_path / "train" / "sad" / ".DS_Store").write_bytes(b"x")
    faces = load_split(find_layout(tmp_path), "train", SPEC)
    assert len(faces) == 12
    assert [name for name, _ in faces.unreadable] == ["train/sad/broken.jpg"]


def test_colour_and_other_sizes_become_grey_crops(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    Image.new("RGB", (200, 130), (200, 10, 10)).save(
        tmp_path / "train" / "sad" / "wide.jpg"
    )
    faces = load_split(find_layout(tmp_path), "train", SPEC)
    assert faces.crops.shape == (13, 48, 48, 1)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        find_layout(tmp_path / "nowhere")
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="validation, test"):
        find_layout(tmp_path)


def test_missing_and_empty_class_are_named(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    for path in (tmp_path / "train" / "sad").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="holds no file"):
        load_split(find_layout(tmp_path), "train", SPEC)
    (tmp_path / "train" / "sad").rmdir()
    with pytest.raises(DataError, match="no folder 'sad'"):
        load_split(find_layout(tmp_path), "train", SPEC)


def test_split_without_one_readable_file_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    for path in (tmp_path / "test").rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="None of the 12 files"):
        load_split(find_layout(tmp_path), "test", SPEC)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,one" + ",0" * 9, "line 2: votes must be whole numbers"),
        ("a.png,-1" + ",0" * 9, "line 2: votes cannot be negative"),
        ("a.png,1" + "0" * 30 + ",0" * 9, "line 2: votes .* more than 1000000"),
        ("a.png,1", "line 2: votes must be whole numbers"),
        (
            "\n".join("a.png" + f",{votes}" * 10 for votes in (1, 1, 2)),
            "line 4: what it says of a.png",
        ),
    ],
)
def test_wrong_votes_are_refused_with_their_line(
    tmp_path: Path, row: str, message: str
) -> None:
    path = tmp_path / "annotations.csv"
    header = ",".join(["file", *(f"votes_{word}" for word in VOTE_COLUMNS)])
    path.write_text(f"{header}\n{row}\n")
    with pytest.raises(DataError, match=message):
        read_annotations(path)


def test_annotations_without_columns_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "annotations.csv"
    path.write_text("file,votes_happiness\n")
    with pytest.raises(DataError, match="has no column votes_anger"):
        read_annotations(path)
    path.write_bytes("file,votes_happiness\nna\xefve.png,1\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not in UTF-8"):
        read_annotations(path)


def test_cleaned_manifest_keeps_names_that_are_no_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"train/happy/na\xefve.png")
    row = CleanedRow(name, "train", (1.0, 0.0, 0.0, 0.0), 1.0, "clean")
    write_cleaned(tmp_path / "cleaned.csv", [row])

    assert read_cleaned(tmp_path / "cleaned.csv") == {name: row}
    assert b"na?ve.png" in gallery.page("faces", [gallery.paragraph(name)])


@pytest.mark.parametrize("name", ["Icon\r", "two\nlines.png", 'a ",\r\n.png'])
def test_cleaned_manifest_keeps_names_of_several_lines(
    tmp_path: Path, name: str
) -> None:
    rows = [
        CleanedRow(file, "train", (1.0, 0.0, 0.0, 0.0), 1.0, f"duplicate of {name}")
        for file in (name, "plain.png")
    ]
    write_cleaned(tmp_path / "cleaned.csv", rows)

    assert list(read_cleaned(tmp_path / "cleaned.csv").values()) == rows


def test_cleaned_manifest_decides_targets_and_weights(tmp_path: Path) -> None:
    layout = find_layout(write_dataset(tmp_path / "data"))
    faces = load_split(layout, "train", SPEC)
    manifest = tmp_path / "cleaned.csv"
    columns = ",".join(["file", "split", *EMOTIONS, "weight", "reason"])
    manifest.write_text(
        f"{columns}\n"
        "train/happy/000.png,train,0.5,0,0,0.5,0.7,\n"
        "train/happy/001.png,train,1,0,0,0,0,flat\n"
    )
    kept = apply_manifest(faces, read_cleaned(manifest))
    assert kept.files == ("train/happy/000.png",)
    assert kept.targets.tolist() == [[0.5, 0.0, 0.0, 0.5]]
    assert kept.weights.tolist() == pytest.approx([0.7])
    with pytest.raises(DataError, match="keeps none"):
        apply_manifest(faces, {})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a.png,train,1,1,0,0,1,\n", "line 2: shares must sum to 1"),
        ("a.png,train,1,0,0,0,nan,\n", "line 2: the weight must lie between"),
        ("a.png,train,1,0,0,0,inf,\n", "line 2: the weight must lie between"),
        (
            "a.png,train,1,0,0,0,1,\n" * 2 + "a.png,train,0,1,0,0,1,\n",
            "line 4: what it says of a.png",
        ),
    ],
)
def test_wrong_cleaned_manifest_is_refused_with_its_line(
    tmp_path: Path, rows: str, message: str
) -> None:
    manifest = tmp_path / "cleaned.csv"
    columns = ",".join(["file", "split", *EMOTIONS, "weight", "reason"])
    manifest.write_text(f"{columns}\n{rows}")
    with pytest.raises(DataError, match=message):
        read_cleaned(manifest)


def test_targets_without_votes_are_one_hot() -> None:
    labels = np.array([2, 0], np.int64)
    assert make_targets(labels, None, "consensus").tolist() == [
        [0, 0, 1, 0],
        [1, 0, 0, 0],
    ]


@pytest.mark.parametrize("votes", [None, np.zeros((2, 10), np.int64)])
@pytest.mark.parametrize("source", ["folder", "consensus"])
def test_face_without_label_and_votes_is_no_target(
    votes: npt.NDArray[np.int64] | None, source: LabelSource
) -> None:
    labels = np.array([2, NO_LABEL], np.int64)
    with pytest.raises(ValueError, match="1 faces have neither a label nor a vote"):
        make_targets(labels, votes, source)


def test_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone cannot be read"):
        list_files(tmp_path / "gone")
