from __future__ import annotations

import pytest

from ml.detection import FaceDetector
from ml.manifest import InputSpec
from ml.preprocessing import crop_faces
from ml.quality import face_quality
from tests.pictures import astronaut


@pytest.mark.parametrize("spec", [InputSpec(48, 1), InputSpec(64, 1), InputSpec(48, 3)])
def test_quality_is_the_same_with_and_without_the_crop_at_hand(spec: InputSpec) -> None:
    photo = astronaut()
    (face,) = FaceDetector().detect(photo).faces
    (crop,) = crop_faces(photo, [face], spec)
    assert face_quality(photo, face, crop) == face_quality(photo, face)
