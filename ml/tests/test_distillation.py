from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ml.data import DataError
from ml.distillation import check_teachers, distil
from ml.inference import EmotionClassifier
from ml.manifest import InputSpec
from ml.tests.faces import draw_set


@pytest.fixture(scope="module")
def teacher() -> EmotionClassifier:
    return EmotionClassifier.load()


def test_teacher_moves_the_emotions_and_leaves_what_else_people_saw(
    teacher: EmotionClassifier,
) -> None:
    faces = draw_set(6, votes=True)
    targets = np.full_like(faces.targets, 0.1)
    faces = replace(faces, targets=targets)
    asked: list[None] = []
    learned = distil(faces, [teacher], 0.5, lambda: asked.append(None))
    assert len(asked) == len(faces)
    np.testing.assert_allclose(learned.targets.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(learned.targets[:, 4:], targets[:, 4:])
    views = (faces.crops, faces.crops[:, :, ::-1])
    said = np.mean(
        [[s.probabilities for s in teacher.read_crops(view).scores] for view in views],
        axis=0,
    )
    np.testing.assert_allclose(
        learned.targets[:, :4], 0.5 * 0.1 + 0.5 * 0.4 * said, atol=1e-6
    )


def test_teacher_without_a_share_changes_nothing(teacher: EmotionClassifier) -> None:
    faces = draw_set(3, votes=True)
    np.testing.assert_array_equal(distil(faces, [teacher], 0).targets, faces.targets)


def test_face_that_nobody_could_read_stays_one(teacher: EmotionClassifier) -> None:
    faces = draw_set(3, votes=True)
    targets = np.zeros_like(faces.targets)
    targets[:, 5] = 1
    faces = replace(faces, targets=targets)
    np.testing.assert_array_equal(distil(faces, [teacher], 1).targets, targets)


def test_teacher_of_other_crops_is_refused(teacher: EmotionClassifier) -> None:
    check_teachers([teacher], InputSpec())
    for spec in (InputSpec(channels=3), InputSpec(size_px=64)):
        with pytest.raises(DataError, match="must read the same"):
            check_teachers([teacher], spec)
