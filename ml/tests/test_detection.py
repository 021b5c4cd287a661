from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ml import detection
from ml.detection import FaceDetector
from tests.pictures import astronaut, hopper, landscape


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


def test_one_face_is_found_in_each_portrait(detector: FaceDetector) -> None:
    for photo, centre in ((astronaut(), (224, 119)), (hopper(), (267, 228))):
        found = detector.detect(photo)
        assert found.found == 1
        face = found.faces[0]
        assert not face.assumed
        assert face.score > 0.7
        assert face.box.centre == pytest.approx(centre, abs=12)
        assert face.landmarks is not None
        assert face.landmarks.left_eye[0] < face.landmarks.right_eye[0]
        assert face.landmarks.left_eye[1] < face.landmarks.mouth_left[1]


def test_boxes_are_in_pixels_of_the_photo_whatever_its_size(
    detector: FaceDetector,
) -> None:
    small = detector.detect(astronaut()).faces[0].box
    large_photo = astronaut().resize((1536, 1536))
    large = detector.detect(large_photo).faces[0].box
    assert large.width / 3 == pytest.approx(small.width, rel=0.15)
    assert large.centre == pytest.approx(
        (small.centre[0] * 3, small.centre[1] * 3), abs=25
    )


def test_faces_come_in_reading_order(detector: FaceDetector) -> None:
    sheet = Image.new("RGB", (1024, 1024))
    for x, y in ((0, 0), (512, 0), (0, 512), (512, 512)):
        sheet.paste(astronaut(), (x, y))
    centres = [face.box.centre for face in detector.detect(sheet).faces]
    places = [(x > 512, y > 512) for x, y in centres]
    assert places == [(False, False), (True, False), (False, True), (True, True)]


def test_photo_without_people_has_no_face(detector: FaceDetector) -> None:
    found = detector.detect(landscape())
    assert (found.faces, found.found) == ((), 0)


def test_tight_crop_is_found_or_taken_whole(detector: FaceDetector) -> None:
    box = detector.detect(astronaut()).faces[0].box
    tight = astronaut().crop(
        (
            round(box.x - 5),
            round(box.y - 5),
            round(box.x + box.width + 5),
            round(box.y + box.height + 5),
        )
    )
    for side in (48, 96, 200):
        faces = detector.detect(tight.convert("L").resize((side, side))).faces
        assert len(faces) == 1
        assert faces[0].box.centre == pytest.approx((side / 2, side / 2), abs=side / 5)


def test_small_square_picture_without_a_found_face_is_assumed_to_be_one(
    detector: FaceDetector,
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    found = detector.detect(Image.fromarray(noise))
    assert [face.assumed for face in found.faces] == [True]
    assert found.faces[0].box.area == 64 * 64
    assert detector.detect(Image.new("L", (64, 64), 90)).faces == ()
    wide = Image.fromarray(np.repeat(noise, 2, axis=1))
    assert detector.detect(wide).faces == ()


def test_many_faces_are_capped_and_counted(
    detector: FaceDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheet = Image.new("RGB", (1024, 512))
    sheet.paste(astronaut(), (0, 0))
    sheet.paste(astronaut(), (512, 0))
    monkeypatch.setattr(detection, "MAX_FACES", 1)
    found = detector.detect(sheet)
    assert (len(found.faces), found.found) == (1, 2)
