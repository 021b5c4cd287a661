"""The loop that the site is made for, and workers that die in it."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from ml.tests.faces import write_dataset
from tests.curators import (
    drawn_photos,
    flag,
    give,
    label,
    read,
    training_runs,
    wait_for_run,
)
from tests.stack import Stack, own_services, prepare

FACES = 60
KILLS = int(os.environ.get("KILLS", "2"))
"""One before the first checkpoint, the others after one. Each costs a start of torch;
`make test-services` asks for five."""
EPOCHS = KILLS + 2
"""Enough that none of the kills comes too late."""


@pytest.mark.timed
def test_sixty_faces_go_from_upload_to_a_new_champion_and_back(tmp_path: Path) -> None:
    """From the state after ``make run``, without a data folder."""
    # No run but those that the test asks for.
    given = {"MIEN_RETRAIN_AFTER_LABELS": "1000"}
    with (
        own_services() as services,
        Stack(prepare(tmp_path / "home"), {**services, **given}) as stack,
    ):
        started_at = time.monotonic()
        drawn = drawn_photos(FACES)
        photos = [(give(stack, image), emotion) for image, emotion in drawn]
        truth, receipts = {}, []
        for photo, emotion in photos:
            first = read(stack, photo)
            assert len(first["faces"]) == 1, first
            receipts.append(flag(stack, photo, emotion))
            truth[photo["id"]] = emotion
        champion = first["model_version"]
        label(stack, truth)

        said = stack.manage("retrain", "--mode", "head", "--wait", "--timeout", "90")

        made = re.search(r"Version (\S+): promote", said)
        assert made, said
        candidate = made[1]
        assert candidate != champion
        again = read(stack, give(stack, drawn[0][0]))
        assert again["model_version"] == champion
        stack.manage("promote", candidate, "--by", "max")
        asked_at = time.monotonic()
        for image, _ in drawn[:8]:
            assert read(stack, give(stack, image))["model_version"] == candidate
        assert time.monotonic() - asked_at < 10
        assert _receipt_tells(stack, receipts[0], candidate)
        stack.manage("rollback", "--by", "max")
        for image, _ in drawn[:8]:
            assert read(stack, give(stack, image))["model_version"] == champion
        seconds = time.monotonic() - started_at
        print(f"the loop took {seconds:.0f} s")
        assert seconds < 120


def _receipt_tells(stack: Stack, receipt: str, candidate: str) -> bool:
    """Within half a minute the page names the data set, the version and its answer."""
    path = re.sub(r"^https?://[^/]+", "", receipt)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        status, page = stack.request("GET", path)
        assert status == 200, page
        assert "data set 1" in page, page
        assert candidate in page
        if "The model now says" in page:
            return True
        time.sleep(1)
    return False


def test_full_run_survives_kills_and_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "faces", 4)
    given = {"FER_DATASET_DIR": str(folder)}
    words = ["retrain", "--mode", "full", "--set", f"epochs={EPOCHS}"]
    words += ["--set", "batch_size=8"]
    with (
        own_services() as services,
        Stack(prepare(tmp_path / "home"), {**services, **given}) as stack,
    ):
        truth = {}
        photos = [(give(stack, image), emotion) for image, emotion in drawn_photos(12)]
        for photo, emotion in photos:
            read(stack, photo)
            flag(stack, photo, emotion)
            truth[photo["id"]] = emotion
        label(stack, truth)
        stack.manage(*words)
        for number in range(KILLS):
            # Before its first checkpoint, and after each of the next ones.
            wait_for_run(stack, 1, attempts=number + 1, epochs=number)
            _kill_trainer(stack)

        disturbed = wait_for_run(stack, 1)
        # The same once more: what it would be were it forgotten.
        stack.manage(
            "shell",
            "--no-imports",
            "-c",
            "from webapp.training.models import TrainingRun\n"
            "TrainingRun.objects.update(config={})",
        )
        stack.manage(*words)
        undisturbed = wait_for_run(stack, 2)
        runs = training_runs(stack)

    assert len(runs) == 2
    assert disturbed["state"] == undisturbed["state"] == "done", (
        disturbed,
        undisturbed,
    )
    attempts = [line for line in disturbed["lines"] if line.startswith("Attempt")]
    print(f"{len(attempts)} attempts: {disturbed['lines']}")
    assert len(attempts) == KILLS + 1
    assert any(line.startswith("Going on after") for line in disturbed["lines"])
    assert _what_it_learned(disturbed) == _what_it_learned(undisturbed)


def _what_it_learned(run: dict[str, Any]) -> tuple[Any, ...]:
    curves = [{**row, "duration_seconds": 0} for row in run["curves"]]
    report = {name: row for name, row in run["report"].items() if name != "latency"}
    return curves, report


def _kill_trainer(stack: Stack) -> None:
    """SIGKILL the worker and the process in which it trains."""
    with suppress(LookupError, psutil.NoSuchProcess):
        worker = stack.service("training")
        for process in [*worker.children(recursive=True), worker]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
