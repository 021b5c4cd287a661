from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from ml.detection import FaceDetector
from ml.manifest import InputSpec
from ml.preprocessing import crop_faces
from ml.quality import contrasts, face_quality
from tests.pictures import astronaut


@pytest.mark.parametrize("spec", [InputSpec(48, 1), InputSpec(64, 1), InputSpec(48, 3)])
def test_quality_is_the_same_with_and_without_the_crop_at_hand(spec: InputSpec) -> None:
    photo = astronaut()
    (face,) = FaceDetector().detect(photo).faces
    (crop,) = crop_faces(photo, [face], spec)
    assert face_quality(photo, face, crop) == face_quality(photo, face)


def test_contrast_of_many_faces_needs_no_memory_that_grows_with_them() -> None:
    generator = np.random.default_rng(0)
    crops = generator.integers(0, 256, (30_000, 12, 12, 1), np.uint8)
    tracemalloc.start()
    try:
        found = contrasts(crops)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2 * crops.nbytes  # all deviations at once: over 8 times
    np.testing.assert_array_equal(found, crops.std(axis=(1, 2, 3)))
