from __future__ import annotations

import inspect
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import BatchNorm2d

from ml.calibrate import fit_temperature
from ml.checkpoint import CHECKPOINT_FILE, average_runs, load_result
from ml.cli.training import train as train_command
from ml.consensus import VOTE_COLUMNS
from ml.evaluate import read_set
from ml.export import calibrate_as_met, export_result
from ml.inference import EmotionClassifier
from ml.models import ModelConfig
from ml.tests.faces import draw_set
from ml.train import check_training_set, renew_statistics, soft_loss, train
from ml.train_config import EpochRecord, TrainConfig, TrainingError, config_from_dict

TINY = TrainConfig(
    model=ModelConfig(outputs=10, widths=(8, 8, 16, 16), depths=(1, 1, 1, 1)),
    epochs=2,
    batch_size=16,
    warmup_epochs=0.5,
    ema_decay=0.9,
    device="cpu",
    precision="fp32",
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_command_trains_as_the_config_does_where_nothing_is_said() -> None:
    options = inspect.signature(train_command).parameters
    config = TrainConfig()
    own_names = {
        "epochs": "epochs",
        "batch_size": "batch_size",
        "learning_rate": "learning_rate",
        "warmup": "warmup_epochs",
        "ema_decay": "ema_decay",
        "mixup": "mixup_share",
        "cutmix": "cutmix_share",
        "seed": "seed",
        "device": "device",
        "precision": "precision",
        "loader_threads": "loader_threads",
    }
    for option, own_name in own_names.items():
        assert options[option].default == getattr(config, own_name), option
    for own_name in ("architecture", "channels"):
        assert options[own_name].default == getattr(config.model, own_name), own_name


def test_drawn_faces_are_learnt_exported_and_read(tmp_path: Path) -> None:
    config = replace(
        TINY,
        epochs=8,
        learning_rate=1.0,
        augmentation=None,
        mixup_share=0.0,
        cutmix_share=0.0,
    )
    faces, validation = draw_set(60, votes=True), draw_set(10, 1, votes=True)
    seen: list[EpochRecord] = []
    result = train(config, faces, validation, tmp_path, on_epoch=seen.append)
    assert len(result.history) == result.config.epochs
    assert [record.epoch for record in seen] == list(range(1, 9))
    path = tmp_path / "model.onnx"
    test = draw_set(20, 2, votes=True)
    manifest = export_result(
        result, path, validation, version="tiny", measured_on={"test": test}
    )
    assert manifest.metrics["test"]["consensus"]["accuracy"] > 0.9
    classifier = EmotionClassifier.load(path)
    reading = classifier.read_crops(test.crops)
    correct = reading.logits.argmax(axis=1) == test.folder_labels
    assert correct.mean() == manifest.metrics["test"]["consensus"]["accuracy"]
    # It has seen no blurred or darkened face: what it says of those counts, too.
    assert manifest.calibration == calibrate_as_met(classifier, validation, "consensus")
    as_they_are = fit_temperature(
        read_set(classifier, validation.crops), validation.consensus
    )
    assert manifest.calibration.temperature > 1.2 * as_they_are


def test_stopped_run_ends_where_the_unbroken_one_does(tmp_path: Path) -> None:
    faces, validation = draw_set(12, votes=True), draw_set(3, 1, votes=True)
    whole = train(TINY, faces, validation, tmp_path / "whole")
    half = train(TINY, faces, validation, tmp_path / "halves", stop=lambda: True)
    assert len(half.history) < half.config.epochs
    resumed = train(TINY, faces, validation, tmp_path / "halves")
    assert len(resumed.history) == resumed.config.epochs
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_same_seed_gives_the_same_numbers_whoever_prepares_batches(
    tmp_path: Path,
) -> None:
    faces, validation = draw_set(12, votes=True), draw_set(3, 1, votes=True)
    losses = [
        train(
            replace(TINY, loader_threads=threads, seed=seed),
            faces,
            validation,
            tmp_path / f"{threads}-{seed}",
        )
        .history[-1]
        .train_loss
        for threads, seed in ((0, 0), (2, 0), (0, 1))
    ]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_run_of_another_config_is_not_overwritten(tmp_path: Path) -> None:
    faces, validation = draw_set(6, votes=True), draw_set(2, 1, votes=True)
    train(TINY, faces, validation, tmp_path)
    with pytest.raises(TrainingError, match="another config"):
        train(replace(TINY, seed=5), faces, validation, tmp_path)


def test_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"no checkpoint")
    with pytest.raises(TrainingError, match="cannot be read"):
        load_result(tmp_path)
    with pytest.raises(TrainingError, match="Train first"):
        load_result(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "change",
    [
        {"config": None},
        {"config": "{"},
        {"config": '{"model": {}}'},
        {"history": '[{"epoch": 1}]'},
        {"network": {}, "average": {}},
        {"optimiser": {}},
        {"steps": "many"},
    ],
    ids=lambda change: "-".join(change),
)
def test_checkpoint_that_is_none_of_ours_is_named(
    change: dict[str, object], tmp_path: Path
) -> None:
    faces, validation = draw_set(5, votes=True), draw_set(2, 1, votes=True)
    train(TINY, faces, validation, tmp_path, stop=lambda: True)
    path = tmp_path / CHECKPOINT_FILE
    torch.save(torch.load(path, weights_only=True) | change, path)

    with pytest.raises(TrainingError, match=f"{CHECKPOINT_FILE} cannot be read"):
        train(TINY, faces, validation, tmp_path)
    if "optimiser" not in change and "steps" not in change:
        with pytest.raises(TrainingError, match=f"{CHECKPOINT_FILE} cannot be read"):
            load_result(tmp_path)


class Touch:
    """Unpickled without care it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_neither_runs_nor_is_advised(tmp_path: Path) -> None:
    run, mark = tmp_path / "run", tmp_path / "ran"
    run.mkdir()
    (run / CHECKPOINT_FILE).write_bytes(pickle.dumps(Touch(mark)))
    faces, validation = draw_set(5, votes=True), draw_set(2, 1, votes=True)

    with pytest.raises(TrainingError) as resumed:
        train(TINY, faces, validation, run)
    checkpoint, new = run / CHECKPOINT_FILE, tmp_path / "new"
    with pytest.raises(TrainingError) as started:
        train(TINY, faces, validation, new, pretrained=[checkpoint])

    assert not mark.exists()
    for said in (str(resumed.value), str(started.value)):
        assert "damaged" in said
        assert "weights_only" not in said


@pytest.mark.parametrize("device", ["meta", "xla", "cpu:x", "mps", ""])
def test_device_that_is_not_there_is_named(device: str, tmp_path: Path) -> None:
    if device == "mps" and torch.backends.mps.is_available():
        device = "mps:7"
    config = replace(TINY, device=device)

    with pytest.raises(TrainingError, match="There is no device"):
        train(config, draw_set(5, votes=True), draw_set(2, 1, votes=True), tmp_path)


def test_checkpoint_holds_nothing_but_tensors_and_text(tmp_path: Path) -> None:
    faces, validation = draw_set(6, votes=True), draw_set(2, 1, votes=True)
    train(TINY, faces, validation, tmp_path)
    saved = torch.load(tmp_path / CHECKPOINT_FILE, weights_only=True)
    assert config_from_dict(json.loads(saved["config"])) == TINY
    assert load_result(tmp_path).config == TINY


def test_run_starts_where_another_one_ended(tmp_path: Path) -> None:
    faces, validation = draw_set(12, votes=True), draw_set(3, 1, votes=True)
    first = train(TINY, faces, validation, tmp_path / "first")
    gentle = replace(TINY, epochs=1, learning_rate=1e-6, warmup_epochs=0.0)
    start = tmp_path / "first" / CHECKPOINT_FILE
    second = train(
        gentle, faces, validation, tmp_path / "second", pretrained=[start]
    ).network.state_dict()
    for name, value in first.network.named_parameters():
        assert torch.allclose(value, second[name], atol=1e-3), name
    folders = draw_set(12)
    fewer = replace(gentle, model=replace(TINY.model, outputs=4))
    third = train(fewer, folders, folders, tmp_path / "third", pretrained=[start])
    assert third.network.head.out_features == 4
    body = third.network.state_dict()["body.0.weight"]
    assert torch.allclose(body, second["body.0.weight"], atol=1e-3)
    other = replace(fewer, model=replace(fewer.model, architecture="base"))
    with pytest.raises(TrainingError, match="cannot be used"):
        train(other, folders, folders, tmp_path / "fourth", pretrained=[start])


def test_mean_of_two_runs_is_exported_with_both_configs(tmp_path: Path) -> None:
    faces, validation = draw_set(12, votes=True), draw_set(3, 1, votes=True)
    configs = [replace(TINY, seed=seed) for seed in (0, 1)]
    folders = [tmp_path / "first", tmp_path / "second"]
    states = [
        train(config, faces, validation, folder).network.state_dict()
        for config, folder in zip(configs, folders, strict=True)
    ]

    result = average_runs(folders)

    for name, value in result.network.named_parameters():
        mean = (states[0][name] + states[1][name]) / 2
        assert torch.allclose(value, mean, atol=1e-7), name
    manifest = export_result(result, tmp_path / "m.onnx", validation, version="mean")
    assert config_from_dict(manifest.training["config"]) == configs[0]
    (other,) = manifest.training["averaged_with"]
    assert config_from_dict(other) == configs[1]
    alone = average_runs(folders[:1])
    assert alone.averaged_with == ()
    assert torch.equal(
        alone.network.head.weight, load_result(folders[0]).network.head.weight
    )


def test_mean_of_runs_gets_statistics_of_its_own(tmp_path: Path) -> None:
    faces, validation = draw_set(12, votes=True), draw_set(3, 1, votes=True)
    folders = [tmp_path / "first", tmp_path / "second"]
    for seed, folder in enumerate(folders):
        train(replace(TINY, seed=seed), faces, validation, folder)
    result = average_runs(folders)
    norm = next(
        module for module in result.network.modules() if isinstance(module, BatchNorm2d)
    )
    seen: list[torch.Tensor] = []
    norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    told: list[tuple[str, int]] = []

    def progress(title: str, total: int) -> Callable[[], None]:
        told.append((title, total))
        return lambda: told.append(("done", 1))

    assert norm.running_mean is not None
    before = norm.running_mean.clone()
    renew_statistics(result.network, result.config, faces, progress)

    means = torch.stack([given.mean(dim=(0, 2, 3)) for given in seen])
    assert torch.allclose(norm.running_mean, means.mean(dim=0), atol=1e-5)
    assert not torch.allclose(norm.running_mean, before, atol=1e-5)
    assert told == [("Measuring normalisation", len(seen)), *[("done", 1)] * len(seen)]


def test_training_set_of_a_run_is_known_whatever_its_teachers_said(
    tmp_path: Path,
) -> None:
    faces, validation = draw_set(4, votes=True), draw_set(2, 1, votes=True)
    other_word = replace(faces, targets=faces.targets[::-1].copy())
    short = replace(TINY, epochs=1)
    taught = replace(short, teachers=("a" * 64,), teacher_share=0.5)
    for config, name in ((short, "alone"), (taught, "taught")):
        train(config, faces, validation, tmp_path / name)
        check_training_set(tmp_path / name, faces)
        with pytest.raises(TrainingError, match=f"{name} trained on another"):
            check_training_set(tmp_path / name, faces.take(np.arange(8)))
    check_training_set(tmp_path / "taught", other_word)
    with pytest.raises(TrainingError, match="alone trained on another"):
        check_training_set(tmp_path / "alone", other_word)


def test_runs_of_different_networks_have_no_mean(tmp_path: Path) -> None:
    faces, validation = draw_set(12, votes=True), draw_set(3, 1, votes=True)
    wider = replace(TINY, model=replace(TINY.model, widths=(8, 8, 16, 24)))
    for config, name in ((TINY, "first"), (wider, "second")):
        train(replace(config, epochs=1), faces, validation, tmp_path / name)
    with pytest.raises(TrainingError, match="second holds another network"):
        average_runs([tmp_path / "first", tmp_path / "second"])


def test_short_epochs_and_bf16_train_as_well(tmp_path: Path) -> None:
    config = replace(TINY, faces_per_epoch=32, precision="bf16", label_smoothing=0.1)
    done: list[tuple[int, int]] = []
    train(
        config,
        draw_set(20, votes=True),
        draw_set(2, 1, votes=True),
        tmp_path,
        on_batch=lambda number, total: done.append((number, total)),
    )
    assert done == [(1, 2), (2, 2)] * 2


def test_batch_of_more_than_all_faces_trains_as_one_of_all(tmp_path: Path) -> None:
    faces, validation = draw_set(5, votes=True), draw_set(3, 1, votes=True)
    whole, larger = (
        train(replace(TINY, batch_size=size), faces, validation, tmp_path / str(size))
        for size in (len(faces), 100_000)
    )
    for one, other in zip(whole.history, larger.history, strict=True):
        assert replace(one, duration_seconds=0) == replace(other, duration_seconds=0)


def test_data_that_does_not_fit_the_config_is_refused(tmp_path: Path) -> None:
    votes, folders = draw_set(4, votes=True), draw_set(4)
    with pytest.raises(TrainingError, match="4 targets a face, the config 10"):
        train(TINY, folders, folders, tmp_path)
    with pytest.raises(TrainingError, match="at least two faces"):
        train(TINY, votes.take(np.arange(1)), votes, tmp_path)
    colour = draw_set(4, channels=3, votes=True)
    with pytest.raises(TrainingError, match="differ in channels"):
        train(TINY, colour, colour, tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    faces = draw_set(4, votes=True)
    with pytest.raises(TrainingError, match="No GPU"):
        train(replace(TINY, device="cuda"), faces, faces, tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_takes_the_same_path(tmp_path: Path) -> None:
    faces = draw_set(12, votes=True)
    config = replace(TINY, device="auto", precision="auto")
    assert len(train(config, faces, faces, tmp_path).history) == config.epochs


def test_several_processes_train_one_network(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        "import sys\n"
        "from contextlib import suppress\n"
        "from pathlib import Path\n"
        "import torch\n"
        "torch.set_num_threads(1)\n"
        "from ml.tests.faces import draw_set\n"
        "from ml.tests.test_train import TINY\n"
        "from ml.train import train\n"
        "faces = draw_set(12, votes=True)\n"
        "train(TINY, faces, faces, Path(sys.argv[1]))\n"
        "for task in Path('/proc/self/task').glob('*/comm'):\n"
        "    with suppress(OSError):  # A thread that has just ended.\n"
        "        name = task.read_text()\n"
        "        assert 'gloo' not in name, f'Outlived its training: {name}'\n"
    )
    root = Path(__file__).parents[2]
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", "2", "--log-dir", str(tmp_path / "log")),
        *(str(script), str(tmp_path / "run")),
    ]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    result = load_result(tmp_path / "run")
    assert len(result.history) == result.config.epochs


def test_faces_without_a_vote_on_the_four_do_not_lower_the_validation_loss(
    tmp_path: Path,
) -> None:
    faces, judged = draw_set(6, votes=True), draw_set(2, 1, votes=True)
    targets = judged.targets.copy()
    targets[4:] = 0
    targets[4:, VOTE_COLUMNS.index("anger")] = 1
    half_elsewhere = replace(judged, targets=targets)
    config = replace(TINY, epochs=1)

    losses = [
        train(config, faces, validation, tmp_path / str(number))
        .history[-1]
        .validation_loss
        for number, validation in enumerate(
            (half_elsewhere, half_elsewhere.take(np.arange(4)))
        )
    ]

    assert losses[0] == pytest.approx(losses[1])


def test_loss_is_least_where_the_votes_are_met() -> None:
    targets = torch.tensor([[0.6, 0.1, 0.1, 0.1, 0.1]])
    weights = torch.ones(1)
    met = soft_loss(targets.log(), targets, weights)
    missed = soft_loss(torch.zeros(1, 5), targets, weights)
    assert met < missed
    entropy = -(targets * targets.log()).sum()
    assert soft_loss(targets.log(), targets, weights, 0.0) == pytest.approx(
        float(entropy), abs=1e-6
    )


def test_faces_without_weight_do_not_count() -> None:
    logits = torch.randn(2, 4)
    targets = torch.eye(4)[:2]
    both = soft_loss(logits, targets, torch.tensor([1.0, 0.0]))
    assert both == pytest.approx(
        float(soft_loss(logits[:1], targets[:1], torch.ones(1)))
    )


@pytest.mark.parametrize(
    "change",
    [{"epochs": 0}, {"ema_decay": 1.0}, {"mixup_share": 0.9, "cutmix_share": 0.2}],
)
def test_contradicting_configs_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        replace(TINY, **change)  # type: ignore[arg-type]
