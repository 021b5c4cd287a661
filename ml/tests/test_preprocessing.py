from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ml.data import load_face
from ml.detection import FaceDetector
from ml.labels import Emotion
from ml.manifest import InputSpec, Normalisation
from ml.preprocessing import (
    CROP_SIDE_PER_FACE,
    MIN_LEVELLED_ROLL_DEGREES,
    crop_face,
    crop_faces,
    face_region,
    face_roll_degrees,
    normalise,
    whole_picture,
)
from ml.tests.faces import draw_face, draw_set
from ml.types import CropRegion, DetectedFace, FaceBox, Landmarks
from tests.pictures import hopper


def _face(generator_seed: int = 0) -> Image.Image:
    return draw_face(Emotion.HAPPY, np.random.default_rng(generator_seed))


def test_picture_of_the_networks_size_passes_unchanged() -> None:
    picture = _face()
    crops = crop_faces(picture, [whole_picture(picture)], InputSpec())
    assert np.array_equal(crops[0, :, :, 0], np.asarray(picture))


def test_training_reads_a_file_as_serving_reads_the_same_picture(
    tmp_path: Path,
) -> None:
    path = tmp_path / "face.png"
    _face().save(path)
    served = Image.open(path).convert("RGB")
    given = crop_faces(served, [whole_picture(served)], InputSpec())[0]
    assert np.array_equal(load_face(path, InputSpec()), given)


def test_grey_and_colour_of_a_grey_picture_are_the_same() -> None:
    picture = _face().convert("RGB")
    region = face_region(whole_picture(picture))
    colour = crop_face(picture, region, 48, channels=3)
    grey = crop_face(picture, region, 48, channels=1)
    assert np.array_equal(colour, np.repeat(grey, 3, axis=2))


def test_outside_the_photo_its_edge_repeats() -> None:
    picture = Image.new("L", (40, 40), 90)
    for centre in ((0.0, 0.0), (40.0, 20.0), (-30.0, 90.0)):
        crop = crop_face(picture, CropRegion(centre, 30.0), 48)
        assert (crop == 90).all()


def test_reduction_is_antialiased() -> None:
    checks = np.indices((960, 960)).sum(axis=0) % 2 * 255
    picture = Image.fromarray(checks.astype(np.uint8))
    crop = crop_face(picture, face_region(whole_picture(picture)), 48)
    assert np.abs(crop.astype(int) - 127).max() <= 2


def test_detected_face_is_framed_by_the_measured_margin() -> None:
    face = DetectedFace(FaceBox(100, 50, 40, 90), 0.9)
    region = face_region(face)
    assert region.side_px == pytest.approx(CROP_SIDE_PER_FACE * 60)
    assert region.centre == (120, 95)


def _tilted(degrees: float) -> DetectedFace:
    radians = np.radians(degrees)
    x, y = 20 * np.cos(radians), 20 * np.sin(radians)
    marks = Landmarks((50 - x, 50 - y), (50 + x, 50 + y), (50, 60), (40, 75), (60, 75))
    return DetectedFace(FaceBox(0, 0, 100, 100), 0.9, marks)


def test_tilt_is_levelled_only_where_it_is_worth_it() -> None:
    assert face_roll_degrees(_tilted(30)) == pytest.approx(30)
    assert face_region(_tilted(30)).roll_degrees == pytest.approx(30)
    assert face_region(_tilted(MIN_LEVELLED_ROLL_DEGREES - 1)).roll_degrees == 0
    assert face_region(_tilted(80)).roll_degrees == 0


@pytest.mark.parametrize("degrees", [-20, 20])
def test_levelling_brings_a_turned_face_nearer_to_the_upright_one(
    degrees: int,
) -> None:
    photo, detector, spec = hopper(), FaceDetector(), InputSpec()
    turned_photo = photo.rotate(degrees, Image.Resampling.BICUBIC)
    (face,) = detector.detect(turned_photo).faces
    crops = np.concatenate(
        [
            crop_faces(photo, detector.detect(photo).faces, spec),
            crop_faces(turned_photo, [face], spec),
            crop_faces(turned_photo, [replace(face, landmarks=None)], spec),
        ]
    )
    upright, levelled, left = normalise(crops, Normalisation())
    assert float((upright * levelled).mean()) > float((upright * left).mean()) + 0.02


def test_per_face_normalisation_drops_brightness_and_contrast() -> None:
    crops = draw_set(2).crops
    darker = (crops.astype(float) * 0.5 + 20).astype(np.uint8)
    first = normalise(crops, Normalisation())
    second = normalise(darker, Normalisation())
    assert first.shape == (8, 1, 48, 48)
    assert np.abs(first.mean(axis=(1, 2, 3))).max() < 1e-4
    assert np.abs(first.std(axis=(1, 2, 3)) - 1).max() < 1e-4
    assert np.abs(first - second).mean() < 0.02


def test_flat_crop_is_not_blown_up() -> None:
    flat = np.full((1, 48, 48, 1), 128, np.uint8)
    assert np.abs(normalise(flat, Normalisation())).max() == 0


def test_fixed_normalisation_uses_the_manifests_numbers() -> None:
    crops = np.full((1, 48, 48, 3), 255, np.uint8)
    rule = Normalisation("fixed", (0.5, 0.4, 0.3), (0.5, 0.2, 0.1))
    assert normalise(crops, rule)[0, :, 0, 0] == pytest.approx([1.0, 3.0, 7.0])


def test_no_face_gives_an_empty_batch() -> None:
    assert crop_faces(_face(), [], InputSpec()).shape == (0, 48, 48, 1)
