from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from ml.cleaning import clean
from ml.cleaning_report import write_cleaning
from ml.consensus import VOTE_COLUMNS
from ml.data import find_layout
from ml.findings import CleaningResult, Kind
from ml.inference import EmotionClassifier
from ml.labels import Emotion
from ml.suspicion import measure_suspicion
from ml.tests.faces import ballots_for, draw_face, write_annotations, write_dataset


@pytest.fixture(scope="module")
def classifier() -> EmotionClassifier:
    return EmotionClassifier.load()


def _files(result: CleaningResult, kind: Kind) -> set[str]:
    return {finding.file for finding in result.findings if finding.finding is kind}


def test_votes_decide_where_there_are_any(
    tmp_path: Path, classifier: EmotionClassifier
) -> None:
    write_dataset(tmp_path)
    neutral, nothing = Emotion.NEUTRAL.position, 9
    write_annotations(
        tmp_path,
        {
            "train/sad/000.png": ballots_for(neutral, 8),
            "train/sad/001.png": ballots_for(Emotion.SAD.position, 9),
            "train/sad/002.png": ballots_for(nothing, 9),
        },
    )
    layout = find_layout(tmp_path)
    result = clean(layout, classifier, None, judge="model")
    assert _files(result, Kind.VOTES_DISAGREE) == {"train/sad/000.png"}
    rows = {row.file: row for row in result.rows}
    assert rows["train/sad/000.png"].shares[neutral] == 1
    assert rows["train/sad/000.png"].weight == pytest.approx(0.8)
    assert rows["train/sad/002.png"].weight == 0
    blind = clean(layout, classifier, None, judge="model", use_votes=False)
    assert not _files(blind, Kind.VOTES_DISAGREE)


def _cast(**votes: int) -> tuple[int, ...]:
    """By the words of ``VOTE_COLUMNS``."""
    return tuple(votes.get(word, 0) for word in VOTE_COLUMNS)


def test_what_the_votes_change_is_named(
    tmp_path: Path, classifier: EmotionClassifier
) -> None:
    write_dataset(tmp_path)
    write_annotations(
        tmp_path,
        {
            "train/happy/000.png": _cast(anger=10),
            "train/happy/001.png": _cast(not_a_face=6, happiness=4),
            "train/happy/002.png": _cast(sadness=4, happiness=3, neutral=3),
            "train/sad/000.png": _cast(fear=3, disgust=3, anger=2, sadness=2),
            "train/sad/001.png": _cast(unknown=6, neutral=3, sadness=1),
            "train/sad/002.png": _cast(sadness=4, neutral=4, anger=2),
        },
    )

    result = clean(find_layout(tmp_path), classifier, None, judge="model")

    told = {finding.file: finding.detail for finding in result.findings}
    assert told == {
        "train/happy/000.png": "filed under happy, 10 of 10 see anger",
        "train/happy/001.png": "filed under happy, 6 of 10 see no face, 4 happy",
        "train/sad/000.png": (
            "filed under sad, 3 of 10 see disgust, 3 fear, 2 sad, 2 anger"
        ),
        "train/sad/001.png": (
            "filed under sad, 6 of 10 see something unknown, 3 neutral, 1 sad"
        ),
    }
    assert _files(result, Kind.VOTES_ELSEWHERE) == set(told)
    rows = {row.file: row for row in result.rows}
    assert {file: (rows[file].weight, rows[file].reason) for file in told} == {
        "train/happy/000.png": (0, "votes_elsewhere"),
        "train/happy/001.png": (pytest.approx(0.4), "votes_elsewhere"),
        "train/sad/000.png": (0, "votes_elsewhere"),
        "train/sad/001.png": (
            pytest.approx(0.4),
            "votes_elsewhere; more see neutral than sad",
        ),
    }
    assert rows["train/happy/002.png"].reason == "more see sad than happy"
    assert rows["train/sad/002.png"].reason == ""
    changed = {row.file for row in result.rows if row.reason}
    assert changed == {*told, "train/happy/002.png"}


def _plant(root: Path) -> set[str]:
    """Happy faces filed under surprise; their names."""
    generator = np.random.default_rng(7)
    planted = set()
    for number in range(6):
        name = f"planted{number}.png"
        draw_face(Emotion.HAPPY, generator).save(root / "train" / "surprise" / name)
        planted.add(f"train/surprise/{name}")
    return planted


def test_wrong_labels_are_found_without_votes(
    tmp_path: Path, classifier: EmotionClassifier
) -> None:
    root = write_dataset(tmp_path, {"train": 30, "validation": 5, "test": 5})
    planted = _plant(root)
    result = clean(find_layout(root), classifier, None, judge="folds")
    found = _files(result, Kind.SUSPECT_LABEL)
    assert len(planted & found) >= 2
    layout = find_layout(root)
    assert measure_suspicion(result, layout) == {}
    write_annotations(
        root,
        {
            file: ballots_for(
                Emotion.HAPPY.position
                if file in planted
                else int(result.faces.folder_labels[i])
            )
            for i, file in enumerate(result.faces.files)
        },
    )
    measured = measure_suspicion(result, find_layout(root))
    assert (measured["train"].faces, measured["train"].wrong) == (126, 6)
    assert measured["train"].auroc > 0.9
    assert math.isnan(measured["test"].auroc)
    order = np.argsort(-result.suspicion)
    first = {result.faces.files[i] for i in order[:12]}
    assert len(planted & first) >= 4


def test_labels_that_nobody_voted_on_are_judged_beside_those_with_votes(
    tmp_path: Path, classifier: EmotionClassifier
) -> None:
    root = write_dataset(tmp_path, {"train": 20, "validation": 1, "test": 1})
    planted = _plant(root)
    # As everybody else they would be called suspect.
    voted = {f"train/surprise/planted{number}.png" for number in (0, 1)}
    write_annotations(
        root, {file: ballots_for(Emotion.SURPRISE.position, 10) for file in voted}
    )

    result = clean(find_layout(root), classifier, None, judge="folds")

    assert result.judge == "folds"
    found = _files(result, Kind.SUSPECT_LABEL)
    assert len(planted & found) >= 2
    assert not voted & found
    rows = {row.file: row for row in result.rows}
    for file in planted & found:
        assert int(np.argmax(rows[file].shares)) == Emotion.HAPPY.position
        assert rows[file].reason == "suspect_label"
    unknown = np.isnan(result.suspicion)
    assert {result.faces.files[i] for i in np.flatnonzero(unknown)} == voted


def test_where_all_have_votes_no_model_is_asked(
    tmp_path: Path, classifier: EmotionClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_dataset(tmp_path / "data", 1)
    names = [path.relative_to(root).as_posix() for path in root.rglob("*.png")]
    write_annotations(root, {name: ballots_for(0, 10) for name in names})
    asked: list[str] = []
    monkeypatch.setattr(
        EmotionClassifier, "read_crops", lambda *_: asked.append("read_crops")
    )

    result = clean(find_layout(root), classifier, None, judge="model")
    write_cleaning(tmp_path / "out", result)

    assert asked == []
    assert result.judge is None
    report = (tmp_path / "out" / "report.md").read_text()
    assert "Only votes judged" in report
    assert "The model itself judged" not in report


def test_no_model_is_asked_of_too_few_faces_to_judge(
    tmp_path: Path, classifier: EmotionClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_dataset(tmp_path, 1)
    names = [path.relative_to(root).as_posix() for path in root.rglob("*.png")]
    write_annotations(root, {name: ballots_for(0) for name in names if "sad" in name})
    asked: list[str] = []
    monkeypatch.setattr(
        EmotionClassifier, "read_crops", lambda *_: asked.append("read_crops")
    )

    result = clean(find_layout(root), classifier, None, judge="model")

    assert asked == []
    assert result.judge is None
    assert np.isnan(result.suspicion).all()


def test_suspicion_is_not_measured_where_nobody_judged(
    tmp_path: Path, classifier: EmotionClassifier
) -> None:
    root = write_dataset(tmp_path, 1)
    for path in root.rglob("sad/*.png"):
        path.write_bytes(b"no picture")
    write_annotations(root, {"train/happy/000.png": ballots_for(3)})

    layout = find_layout(root)
    result = clean(layout, classifier, None, judge="model", use_votes=False)

    assert result.judge is None
    assert measure_suspicion(result, layout) == {}


def test_copies_of_few_faces_are_judged_by_the_model(
    tmp_path: Path, classifier: EmotionClassifier
) -> None:
    root = write_dataset(tmp_path, 1)
    for picture in list((root / "train").rglob("*.png")):
        for copy in range(12):
            picture.with_name(f"copy{copy}.png").write_bytes(picture.read_bytes())

    result = clean(find_layout(root), classifier, None, judge="folds")

    assert len(result.rows) == 60
    assert (result.suspicion >= 0).all()
    assert result.judge == "model"
