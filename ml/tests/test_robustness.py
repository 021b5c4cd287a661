from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from ml.detection import Detection
from ml.framing import CANVAS_PX, FACE_PX, measure_framing, paste
from ml.inference import EmotionClassifier
from ml.labels import Emotion
from ml.robustness import CORRUPTIONS, corrupt, measure_robustness
from ml.tests.faces import draw_set
from ml.types import DetectedFace, FaceBox
from tests.pictures import astronaut, hopper


@pytest.mark.parametrize("name", list(CORRUPTIONS))
@pytest.mark.parametrize("channels", [1, 3])
def test_corruption_harms_every_face_and_is_the_same_each_time(
    name: str, channels: int
) -> None:
    crops = draw_set(2, channels=channels).crops
    before = crops.copy()
    harmed = corrupt(crops, CORRUPTIONS[name])
    assert np.array_equal(crops, before)
    assert harmed.shape == crops.shape
    difference = np.abs(harmed.astype(float) - crops).mean(axis=(1, 2, 3))
    assert (difference > 1).all()
    assert np.array_equal(harmed, corrupt(crops, CORRUPTIONS[name]))


def test_table_tells_what_each_corruption_costs() -> None:
    losses = measure_robustness(EmotionClassifier.load(), draw_set(4), "folder")
    assert list(losses) == ["as it is", *CORRUPTIONS]
    whole = losses["as it is"].accuracy
    for loss in losses.values():
        assert loss.lost == pytest.approx(whole - loss.accuracy)


def test_pasted_face_lies_where_it_is_said_to() -> None:
    generator = np.random.default_rng(0)
    crop = draw_set(1).crops[0]
    for _ in range(5):
        canvas, (left, top), side = paste(crop, generator)
        assert canvas.size == (CANVAS_PX, CANVAS_PX)
        assert FACE_PX[0] <= side < FACE_PX[1]
        again = canvas.crop((left, top, left + side, top + side)).resize((48, 48))
        difference = np.abs(np.asarray(again, float) - crop[:, :, 0]).mean()
        assert difference < 6


def test_faces_found_in_larger_pictures_are_read_as_the_faces_themselves() -> None:
    portraits = [
        photo.crop(box).convert("L").resize((48, 48))
        for photo, box in (
            (astronaut(), (170, 60, 280, 170)),
            (hopper(), (165, 120, 370, 325)),
        )
    ]
    faces = draw_set(1).take(np.array([0, 3]))
    crops = np.stack([np.asarray(portrait)[:, :, None] for portrait in portraits])
    assert faces.folder_labels.tolist() == [
        Emotion.HAPPY.position,
        Emotion.NEUTRAL.position,
    ]
    report = measure_framing(
        EmotionClassifier.load(),
        faces.with_crops(crops),
        "folder",
        sides=(1.0, 1.1),
        shifts=(0.0,),
    )
    assert report.faces == report.found == 2
    assert report.untouched == report.served == 1.0
    assert [row.side_per_face for row in report.rows] == [1.0, 1.1]
    assert 0.9 < report.side[1] < 1.4


class _Finder:
    """Finds small faces all over a canvas; what is found is not measured here."""

    def detect(self, photo: Image.Image) -> Detection:
        places = range(25, CANVAS_PX, 50)
        boxes = [FaceBox(x - 20, y - 20, 40, 40) for x in places for y in places]
        return Detection(tuple(DetectedFace(box, 0.9) for box in boxes), len(boxes))


def test_framing_of_many_faces_holds_few_canvases(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ml.framing.FaceDetector", _Finder)
    classifier, faces = EmotionClassifier.load(), draw_set(10)
    reports, peaks = [], []
    for at_once in (len(faces), 7):
        monkeypatch.setattr("ml.framing._AT_ONCE", at_once)
        tracemalloc.start()
        reports.append(
            measure_framing(
                classifier, faces, "folder", sides=(1.0, 1.2), shifts=(0.0, 0.05)
            )
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert reports[0] == reports[1]
    assert reports[0].faces == reports[0].found == 40
    canvas = CANVAS_PX**2
    assert peaks[0] > 40 * canvas
    assert peaks[1] < 20 * canvas
