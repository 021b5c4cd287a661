"""Files of photos -> what the model says of each face, as plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ml.detection import Detection, FaceDetector
from ml.images import ImageRefused, decode_image, read_file
from ml.inference import EmotionClassifier
from ml.preprocessing import whole_picture
from ml.types import DetectedFace, EmotionScores


def predict_file(
    path: Path,
    classifier: EmotionClassifier,
    detector: FaceDetector | None = None,
) -> dict[str, Any]:
    """JSON values: ``file`` and ``faces``, or ``file`` and ``error``.

    Without a detector the file is taken as one face. Boxes are in pixels of the
    upright photo. Where it shows more faces than are read, ``faces_found`` is more
    than there are in ``faces``.
    """
    answer: dict[str, Any] = {"file": str(path)}
    try:
        photo = decode_image(read_file(path)).pixels
    except OSError as error:
        reason = error.strerror or str(error)
        return answer | {"error": {"code": "unreadable", "message": reason}}
    except ImageRefused as error:
        return answer | {"error": {"code": error.code, "message": str(error)}}
    detection = (
        detector.detect(photo) if detector else Detection((whole_picture(photo),), 1)
    )
    faces = detection.faces
    reading = classifier.read(photo, faces)
    return answer | {
        "model_version": classifier.manifest.version,
        "faces_found": detection.found,
        "faces": [
            _face_values(face, scores)
            for face, scores in zip(faces, reading.scores, strict=True)
        ],
    }


def _face_values(face: DetectedFace, scores: EmotionScores) -> dict[str, Any]:
    return {
        "box": {
            "x": round(face.box.x, 1),
            "y": round(face.box.y, 1),
            "width": round(face.box.width, 1),
            "height": round(face.box.height, 1),
        },
        "probabilities": scores.by_emotion(),
        "label": scores.label.value,
        "confidence": scores.confidence,
        "not_sure": scores.not_sure,
        "assumed": face.assumed,
    }
