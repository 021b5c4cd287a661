from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ml import train
from ml.compare import _seconds_per_face
from ml.tests.faces import draw_set
from ml.tests.small import SMALL
from ml.train_config import TrainConfig


def test_time_a_face_is_that_of_an_epoch_which_only_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)

    def refuse(*_: object) -> None:
        raise AssertionError("The statistics are taken at the end of a run, once.")

    monkeypatch.setattr(train, "measure_statistics", refuse)
    config = TrainConfig(model=SMALL, batch_size=8, device="cpu")

    seconds = _seconds_per_face(config, draw_set(10, votes=True), tmp_path)

    assert 0 < seconds < 10
    assert not (tmp_path / "trial").exists()
