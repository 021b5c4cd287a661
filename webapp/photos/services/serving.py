"""The networks of this process: the detector, and whichever version is champion.

A worker asks before every photo, so a promotion is in force at once and without a
restart; a photo is read by one version alone.
"""

from __future__ import annotations

import logging
import math
import mmap
import threading
import time
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
from django.conf import settings
from PIL import Image

from ml.detection import FaceDetector
from ml.inference import EmotionClassifier
from ml.manifest import ManifestError, ModelFileError
from ml.runtime import Provider
from webapp.core.storage import StorageAway
from webapp.registry.models import ModelVersion
from webapp.registry.selectors import get_champion, is_champion, read_model_file

_LOAD_AGAIN_AFTER_SECONDS: Final = 15.0
"""A store that hangs takes nine seconds to be found away, and a photo has twenty."""

logger = logging.getLogger(__name__)


class NoModelServes(Exception):
    """No version is registered, or the only one cannot be loaded."""


@dataclass(frozen=True, slots=True)
class ServingModel:
    """A registered version and its loaded network."""

    version: ModelVersion
    classifier: EmotionClassifier


class ModelServer:
    """Keeps one detector and one classifier loaded; safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._detector: FaceDetector | None = None
        self._model: ServingModel | None = None
        self._refused_sha256 = ""
        self._away_at = -math.inf

    @property
    def detector(self) -> FaceDetector:
        with self._lock:
            if self._detector is None:
                self._detector = FaceDetector(provider=_provider())
            return self._detector

    def champion(self) -> ServingModel:
        """The champion, loaded.

        A champion whose file is not what the registry says does not load: the last
        good one goes on serving, and the log says so. So it does while the store is
        away, which is not asked for the file before every photo. Raises
        ``NoModelServes`` where there is none.
        """
        model = self._model
        if model is not None and is_champion(model.version):
            return model
        champion = get_champion()
        if champion is None:
            raise NoModelServes("no model is registered: run manage.py bootstrap")
        with self._lock:
            if self._model is None or (
                self._model.version.pk != champion.pk
                and time.monotonic() >= self._away_at + _LOAD_AGAIN_AFTER_SECONDS
            ):
                self._load(champion)
            if self._model is None:
                raise NoModelServes(f"version {champion.version} cannot be loaded")
            return self._model

    def warm_up(self) -> None:
        """Load both networks and run each once: the first run is the slowest.

        Raises ``NoModelServes``, or ``ProviderUnavailable`` before the database or the
        store is asked for anything.
        """
        detector = self.detector
        spec = self.champion().classifier.manifest.input
        blank = np.zeros((1, spec.size_px, spec.size_px, spec.channels), np.uint8)
        self.champion().classifier.read_crops(blank)
        detector.detect(Image.new("RGB", (640, 480)))

    def _load(self, champion: ModelVersion) -> None:
        try:
            classifier = EmotionClassifier(
                *read_model_file(champion), provider=_provider()
            )
        except StorageAway as error:
            logger.warning("version %s is not loaded yet: %s", champion.version, error)
            self._away_at = time.monotonic()
            return
        except (ManifestError, ModelFileError) as error:
            if self._refused_sha256 != champion.sha256:
                logger.error("version %s is refused: %s", champion.version, error)
                self._refused_sha256 = champion.sha256
            return
        self._refused_sha256 = ""
        self._model = ServingModel(champion, classifier)
        _runs_on[:] = classifier.provider.encode().ljust(len(_runs_on), b"\0")
        logger.info("version %s serves", champion.version)


_runs_on: Final = mmap.mmap(-1, 64)
"""Shared by a worker's main process and those it forks, which alone load networks."""


def provider_name() -> str:
    """What networks run on here, as ONNX Runtime says; empty before one is loaded."""
    return _runs_on[:].rstrip(b"\0").decode()


def _provider() -> Provider:
    """Settings have refused every other word."""
    return cast(Provider, settings.INFERENCE_PROVIDER)


model_server = ModelServer()
"""The one of this process."""
