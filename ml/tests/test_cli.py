from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from ml.augmentation import MILD
from ml.cleaning import write_cleaned
from ml.cli import main
from ml.consensus import NO_LABEL
from ml.data import CleanedRow
from ml.detection import MAX_FACES
from ml.inference import SHIPPED_MODEL
from ml.labels import EMOTIONS, Emotion
from ml.manifest import load_manifest, manifest_path
from ml.tests.faces import ballots_for, draw_face, write_annotations, write_dataset
from tests.pictures import encode, hopper, landscape

ROOT = Path(__file__).parents[2]


class Done(NamedTuple):
    stdout: str
    stderr: str


Command = Callable[..., Done]


@pytest.fixture
def ml(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """``python -m ml`` in this process: torch need not be imported each time."""
    monkeypatch.delenv("FER_DATASET_DIR", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(ROOT)

    def run(*arguments: str | Path, code: int = 0) -> Done:
        monkeypatch.setattr(sys, "argv", ["ml", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        written = capsys.readouterr()
        assert (ended.value.code or 0) == code, written.err
        return Done(written.out, written.err)

    return run


def test_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ml", "evaluate", "--data", "nowhere"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "nowhere is no folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_stopped_while_modules_are_loaded_ends_without_a_traceback(
    tmp_path: Path,
) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    done = subprocess.run(
        [sys.executable, "-m", "ml"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (130, "")


def test_predict_prints_one_object_a_file(ml: Command, tmp_path: Path) -> None:
    person, field, text = tmp_path / "a.jpg", tmp_path / "b.png", tmp_path / "c.jpg"
    person.write_bytes(encode(hopper()))
    field.write_bytes(encode(landscape(), "PNG"))
    text.write_text("no picture")
    missing = tmp_path / "d.jpg"
    done = ml("predict", person, field, text, missing, "--json", code=1)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["file"] for answer in answers] == [
        str(path) for path in (person, field, text, missing)
    ]
    (face,) = answers[0]["faces"]
    assert set(face["box"]) == {"x", "y", "width", "height"}
    assert list(face["probabilities"]) == list(EMOTIONS)
    assert sum(face["probabilities"].values()) == pytest.approx(1)
    assert face["label"] in list(EMOTIONS)
    assert face["assumed"] is False
    assert answers[1]["faces"] == []
    assert answers[2]["error"]["code"] == "unsupported_format"
    assert answers[3]["error"]["code"] == "unreadable"


def test_predict_says_where_it_did_not_read_all_faces(
    ml: Command, tmp_path: Path
) -> None:
    crowd = Image.new("RGB", (15 * 90, 10 * 90))
    face = hopper().crop((90, 20, 440, 440)).resize((90, 90))
    for place in range(150):
        crowd.paste(face, (place % 15 * 90, place // 15 * 90))
    crowd.save(tmp_path / "crowd.png")
    answer = json.loads(ml("predict", tmp_path / "crowd.png", "--json").stdout)
    assert answer["faces_found"] > len(answer["faces"]) == MAX_FACES
    said = ml("predict", tmp_path / "crowd.png").stdout
    assert f"the {MAX_FACES} largest were read" in said


def test_predict_takes_a_file_as_one_face(ml: Command, tmp_path: Path) -> None:
    path = tmp_path / "face.png"
    draw_face(Emotion.SAD, np.random.default_rng(0)).save(path)
    answer = json.loads(ml("predict", path, "--face", "--json").stdout)
    (face,) = answer["faces"]
    assert face["box"] == {"x": 0, "y": 0, "width": 48, "height": 48}
    assert face["assumed"] is True
    assert str(path) in ml("predict", path, "--face").stdout


def test_evaluate_prints_one_object(ml: Command, tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", 5)
    out = tmp_path / "report"
    done = ml("evaluate", "--data", root, "--split", "test", "--json", "--out", out)
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["n"] == 20
    assert set(answer["per_class"]["sad"]) == {"precision", "recall", "f1", "support"}
    assert np.array(answer["confusion"]).shape == (4, 4)
    assert 0 <= answer["intervals"]["accuracy"][0] <= answer["accuracy"] <= 1
    assert {"macro_f1", "ece", "coverage"} <= set(answer)
    assert answer["labels"] == "folder"
    assert (out / "confusion.png").stat().st_size > 1000
    assert (out / "reliability.png").exists()
    assert json.loads((out / "report.json").read_text()) == answer


def test_evaluate_uses_consensus_where_there_are_votes(
    ml: Command, tmp_path: Path
) -> None:
    root = write_dataset(tmp_path, 2)
    votes = {f"test/sad/00{i}.png": ballots_for(3, 10 - 5 * i) for i in (0, 1)}
    votes["test/happy/000.png"] = ballots_for(0, 8)
    write_annotations(root, votes)
    told = json.loads(ml("evaluate", "--data", root, "--json").stdout)
    assert (told["labels"], told["n"]) == ("consensus", 7)
    assert 0.5 < told["one_person_accuracy"] <= 1
    told = json.loads(
        ml("evaluate", "--data", root, "--json", "--agreed", "1.0").stdout
    )
    assert told["n"] == 6
    folder = ("--labels", "folder")
    told = json.loads(ml("evaluate", "--data", root, "--json", *folder).stdout)
    assert (told["labels"], told["n"]) == ("folder", 8)


def test_train_export_and_evaluate_go_hand_in_hand(ml: Command, tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", {"train": 8, "validation": 3, "test": 3})
    run, model = tmp_path / "run", tmp_path / "model.onnx"
    options = ("--architecture", "base", "--batch-size", "8", "--threads", "1")
    arguments = ("train", "--data", root, "--run", run, "--epochs", "2", *options)
    ml(*arguments)
    assert (run / "curves.png").exists()
    assert len(json.loads((run / "history.json").read_text())) == 2
    again = ml(*arguments)
    assert "epoch" not in again.stderr.replace("Epochs", "")
    exported = ("--out", model, "--version", "mine")
    single = ("export", "--data", root, "--run", run, *exported, "--eight-bits", "no")
    assert "Measuring normalisation" not in ml(*single).stderr
    done = ml("evaluate", "--data", root, "--model", model, "--json")
    assert json.loads(done.stdout)["model_version"] == "mine"
    eight = tmp_path / "eight.onnx"
    quantised = ("quantise", "--data", root, "--out", eight, "--version", "eight")
    ml(*quantised, "--model", model)
    assert eight.stat().st_size < model.stat().st_size
    refused = ml(*quantised, "--model", eight, code=2)
    assert "eight computes in eight bits already" in refused.stderr
    ml(
        "train",
        "--data",
        root,
        "--run",
        tmp_path / "mild",
        "--epochs",
        "1",
        *options,
        "--augmentation",
        "mild",
        "--seed",
        "1",
    )
    both = ("--run", run, "--run", tmp_path / "mild")
    done = ml("export", "--data", root, *both, *exported)
    assert "Measuring normalisation" in done.stderr
    (other,) = load_manifest(model).training["averaged_with"]
    assert other["augmentation"]["moved_share"] == MILD.moved_share
    changed = ("--epochs", "3", *options)
    done = ml("train", "--data", root, "--run", run, *changed, code=2)
    assert "another config" in done.stderr


def test_mean_is_measured_on_the_faces_that_its_runs_trained_on(
    ml: Command, tmp_path: Path
) -> None:
    root = write_dataset(tmp_path / "data", {"train": 4, "validation": 2, "test": 2})
    names = [path.relative_to(root).as_posix() for path in root.rglob("*.png")]
    other = root / "other_expressions" / "train" / "000.png"
    other.parent.mkdir(parents=True)
    draw_face(Emotion.SAD, np.random.default_rng(9)).save(other)
    votes = {name: ballots_for(EMOTIONS.index(name.split("/")[1])) for name in names}
    voted_other = {"other_expressions/train/000.png": ballots_for(3)}
    write_annotations(root, votes | voted_other)
    cleaned, run = tmp_path / "cleaned.csv", tmp_path / "run"
    kept = [name for name in names if "train" in name and "003" not in name]
    write_cleaned(
        cleaned, [CleanedRow(name, "train", (1, 0, 0, 0), 1, "") for name in kept]
    )
    broken = tmp_path / "broken.csv"
    broken.write_text("file\n")
    small = ("--architecture", "base", "--epochs", "1", "--threads", "1")
    for number, chosen in enumerate((("--no-others",), ("--manifest", cleaned))):
        folder = run / str(number)
        ml("train", "--data", root, "--run", folder, *small, *chosen)
        mean = (
            *("export", "--data", root, "--run", folder, "--run", folder),
            *("--out", tmp_path / "m.onnx", "--version", "v", "--flip", "no"),
        )

        refused = ml(*mean, code=2)
        assert f"{folder} trained on another training set" in refused.stderr
        refused = ml(*mean, "--manifest", broken, code=2)
        assert "broken.csv has no column" in refused.stderr
        assert "Reading" not in refused.stderr
        # What the file is calibrated on says nothing of what its runs aimed at.
        for labels in ("folder", "consensus"):
            ml(*mean, *chosen, "--labels", labels)


def test_of_several_processes_one_draws_the_curves_and_says_what_is_next(
    tmp_path: Path,
) -> None:
    root = write_dataset(tmp_path / "data", {"train": 4, "validation": 1, "test": 1})
    run = tmp_path / "run"
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", "2", "--log-dir", str(tmp_path / "log"), "-m", "--"),
        *("ml", "train", "--data", str(root), "--run", str(run)),
        *("--architecture", "base"),
        *("--epochs", "1", "--batch-size", "8", "--threads", "1", "--device", "cpu"),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"Wrote {run}. Next: ") == 1
    assert (run / "curves.png").exists()


def test_train_learns_from_a_teacher(ml: Command, tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", {"train": 8, "validation": 3, "test": 3})
    arguments = ("train", "--data", root, "--architecture", "base", "--epochs", "1")
    options = ("--batch-size", "8", "--threads", "1", "--run")
    taught = (*arguments, "--teacher", SHIPPED_MODEL, *options, tmp_path / "taught")
    ml(*taught)
    ml(*arguments, *options, tmp_path / "alone")
    configs = [
        json.loads((tmp_path / run / "config.json").read_text())
        for run in ("taught", "alone")
    ]
    assert configs[0]["teachers"] == [load_manifest(SHIPPED_MODEL).sha256]
    assert (configs[1]["teachers"], configs[1]["teacher_share"]) == ([], 0)
    losses = [
        json.loads((tmp_path / run / "history.json").read_text())[0]["train_loss"]
        for run in ("taught", "alone")
    ]
    assert losses[0] != losses[1]
    done = ml(*taught, "--teacher-share", "0.9", code=2)
    assert "another config" in done.stderr
    nothing = tmp_path / "nothing.onnx"
    done = ml(*arguments, "--teacher", nothing, *options, tmp_path / "run", code=2)
    assert str(nothing.with_suffix(".json")) in done.stderr


def test_clean_and_eda_leave_their_files(ml: Command, tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data")
    (root / "train" / "sad" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    out, page = tmp_path / "clean", tmp_path / "eda"
    ml("clean", "--data", root, "--out", out)
    listed = json.loads((out / "report.json").read_text())
    assert {"file": "train/sad/broken.jpg", "finding": "unreadable"}.items() <= next(
        row for row in listed if row["file"].endswith("broken.jpg")
    ).items()
    ml("eda", "--data", root, "--out", page)
    summary = json.loads((page / "summary.json").read_text())
    assert summary["counts"]["train"] == dict.fromkeys(EMOTIONS, 3)
    assert summary["sizes"] == {"48 x 48": 36}
    assert "mean_faces.png" in (page / "index.html").read_text()
    done = ml("eda", "--data", root, "--out", root / "train" / "x", code=2)
    assert "inside the data set" in done.stderr


def test_sizes_of_eda_sum_to_all_pictures(ml: Command, tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", 2)
    for width in range(100, 125):
        picture = Image.new("L", (width, 90), width)
        picture.save(root / "train" / "sad" / f"{width}.png")
    ml("eda", "--data", root, "--out", tmp_path / "eda")
    sizes = json.loads((tmp_path / "eda" / "summary.json").read_text())["sizes"]
    assert len(sizes) == 21
    assert (sizes["48 x 48"], sizes["other"]) == (24, 6)


def test_names_are_shown_as_they_are_written(ml: Command, tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", 1)
    out = tmp_path / ":fire:" / "[b]" / ("a" * 100) / ("b" * 100)
    done = ml("eda", "--data", root, "--out", out)
    assert f"Wrote {out / 'index.html'}" in done.stderr


def test_eda_shows_a_folder_of_which_no_file_can_be_read(
    ml: Command, tmp_path: Path
) -> None:
    root = write_dataset(tmp_path / "data", 2)
    for path in (root / "train" / "sad").iterdir():
        path.write_bytes(b"no picture")
    # NumPy's warnings are errors here.
    ml("eda", "--data", root, "--out", tmp_path / "eda")
    summary = json.loads((tmp_path / "eda" / "summary.json").read_text())
    assert summary["counts"]["train"]["sad"] == 0


def test_compare_writes_one_table_and_goes_on_where_it_stopped(
    ml: Command,
    tmp_path: Path,
) -> None:
    root = write_dataset(tmp_path / "data", {"train": 40, "validation": 3, "test": 3})
    out = tmp_path / "compare"
    some = ("--only", "base-grey", "--only", "base-rgb", "--budget-minutes", "0.02")
    arguments = ("compare", "--data", root, "--out", out, *some, "--threads", "1")
    first = ml(*arguments)
    assert first.stdout.count("| base-") == 2
    assert (out / "accuracy.png").exists()
    assert (out / "confusion.png").exists()
    again = ml(*arguments)
    assert "base-grey: done before" in again.stderr
    assert again.stdout == first.stdout
    # Stopped in its trial, before the plan was written: a checkpoint lies there.
    ended = (out / "base-grey").rename(tmp_path / "ended")
    (out / "base-grey").mkdir()
    ended.rename(out / "base-grey" / "trial")
    assert "| base-grey" in ml(*arguments).stdout
    assert not (out / "base-grey" / "trial").exists()


def test_compare_says_where_no_face_is_left_to_train_on(
    ml: Command, tmp_path: Path
) -> None:
    root = write_dataset(tmp_path / "data", 2)
    shutil.rmtree(root / "train")
    shutil.copytree(root / "test", root / "train")
    out = tmp_path / "out"
    done = ml(*("compare", "--data", root, "--out", out, "--only", "base-grey"), code=2)
    assert "there are 0 and 8" in done.stderr
    assert not out.exists()


def test_comparison_by_folders_is_not_called_one_by_votes(
    ml: Command, tmp_path: Path
) -> None:
    counts = {"train": 8, "validation": 2, "test": 2}
    root, out = write_dataset(tmp_path / "data", counts), tmp_path / "out"
    write_annotations(root, {"elsewhere/000.png": ballots_for(0)})
    for split in counts:
        (root / split / "sad" / "broken.jpg").write_bytes(b"no picture")
    options = ("--only", "base-grey", "--budget-minutes", "0.01", "--threads", "1")
    done = ml("compare", "--data", root, "--out", out, *options)
    assert "has votes on none of the" in done.stderr
    for split in counts:
        assert f"{split}/sad/broken.jpg" in done.stderr
    assert load_manifest(out / "base-grey" / "model.onnx").training["labels"] == (
        "folder"
    )
    done = ml("compare", "--data", root, "--out", out, *options, "--labels", "folder")
    assert "base-grey: done before" in done.stderr


def test_second_comparison_in_one_folder_says_that_one_is_running(
    ml: Command, tmp_path: Path
) -> None:
    root, out = write_dataset(tmp_path / "data", 3), tmp_path / "compare"
    out.mkdir()
    with (out / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        done = ml(
            *("compare", "--data", root, "--out", out, "--only", "base-grey"), code=2
        )

    assert f"Another comparison writes into {out}" in " ".join(done.stderr.split())
    assert not (out / "base-grey").exists()


def test_compare_takes_no_result_of_other_data_for_one_of_these(
    ml: Command, tmp_path: Path
) -> None:
    counts = {"train": 8, "validation": 2, "test": 2}
    root = write_dataset(tmp_path / "data", counts)
    other = write_dataset(tmp_path / "other", counts, seed=1)
    options = ("--out", tmp_path / "out", "--only", "base-grey", "--threads", "1")
    brief = ("--budget-minutes", "0.01")
    ml("compare", "--data", root, *options, *brief)
    for changed in (
        ("--data", other, *brief),
        ("--data", root, *brief, "--seed", "3"),
        ("--data", root, "--budget-minutes", "1"),
    ):
        done = ml("compare", *changed, *options, code=2)
        assert "Give another --out" in done.stderr


def test_run_goes_on_with_its_own_data_alone(ml: Command, tmp_path: Path) -> None:
    root, other = (
        write_dataset(tmp_path / name, 2, seed=seed)
        for seed, name in enumerate(("data", "other"))
    )
    options = ("--run", tmp_path / "run", "--architecture", "base", "--epochs", "1")
    ml("train", "--data", root, *options)
    ml("train", "--data", root, *options)
    done = ml("train", "--data", other, *options, code=2)
    assert "began with another training set" in done.stderr
    started = ("--weights", tmp_path / "run" / "checkpoint.pt")
    done = ml("train", "--data", root, *options, *started, code=2)
    assert "began with another start" in done.stderr


def test_nothing_is_written_among_the_pictures(ml: Command, tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "facial_emotion_images").parent
    write_annotations(root, {})
    (root / "other_expressions" / "train").mkdir(parents=True)
    before = sorted(root.rglob("*"))
    for place in (
        root / "facial_emotion_images" / "test" / "happy",
        root / "other_expressions" / "train",
        root,
    ):
        for command in (
            ("evaluate", "--out", place),
            ("clean", "--out", place),
            ("eda", "--out", place),
            ("train", "--run", place),
            ("compare", "--out", place),
        ):
            done = ml(*command, "--data", root, code=2)
            assert "inside the data set" in done.stderr
    inside = root / "other_expressions" / "m.onnx"
    export = ("export", "--data", root, "--run", tmp_path, "--version", "v")
    assert "inside the data set" in ml(*export, "--out", inside, code=2).stderr
    done = ml(*export, "--out", tmp_path / "m.json", code=2)
    assert "ends in .onnx" in done.stderr
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize(
    "linked",
    [
        "facial_emotion_images",
        "facial_emotion_images/train",
        "facial_emotion_images/train/sad",
        "other_expressions",
        "other_expressions/train",
    ],
)
def test_nothing_is_written_among_pictures_that_lie_elsewhere(
    ml: Command, tmp_path: Path, linked: str
) -> None:
    root = tmp_path / "data"
    write_dataset(root / "facial_emotion_images", 1)
    (root / "other_expressions" / "train").mkdir(parents=True)
    away = (root / linked).rename(tmp_path / "away")
    (root / linked).symlink_to(away)
    for place in (away, away / "new", root / linked / "new"):
        done = ml("eda", "--out", place, "--data", root, code=2)
        assert "inside the data set" in done.stderr


def test_where_nothing_can_be_written_is_said_before_the_work(
    ml: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_dataset(tmp_path / "data", 1)
    loop, shut = tmp_path / "loop", tmp_path / "shut"
    loop.symlink_to(loop)
    shut.mkdir()
    # Whoever runs the tests may be root, who may write anywhere.
    monkeypatch.setattr("os.access", lambda place, mode: place != shut)
    export = ("export", "--run", tmp_path, "--version", "v", "--out")
    for command in (
        ("evaluate", "--out"),
        ("clean", "--out"),
        ("eda", "--out"),
        ("train", "--run"),
        ("compare", "--out"),
        ("features", "--out"),
        export,
    ):
        done = ml(*command, shut / "new" / "m.onnx", "--data", root, code=2)
        assert f"{shut} is no folder, or may not be written to" in done.stderr
        assert "Reading" not in done.stderr
        if command[0] not in ("features", "export"):
            assert "is no folder" in ml(*command, loop, "--data", root, code=2).stderr


def test_labels_are_not_said_to_be_judged_otherwise_than_they_were(
    ml: Command, tmp_path: Path
) -> None:
    root, out = write_dataset(tmp_path / "data", 2), tmp_path / "out"
    write_annotations(root, {"elsewhere/000.png": ballots_for(0)})
    done = ml("evaluate", "--data", root, "--json")
    told = json.loads(done.stdout)
    assert (told["labels"], told["n"]) == ("folder", 8)
    assert "has votes on none of the 8 files" in done.stderr
    done = ml("evaluate", "--data", root, "--agreed", "0.9", code=2)
    assert "leave --agreed out" in done.stderr
    done = ml("clean", "--data", root, "--no-detect", "--out", out)
    assert "has votes on none of the 24 files" in done.stderr
    assert "the model itself judged" not in done.stderr
    folds = ("--no-detect", "--judge", "folds", "--out", out)
    done = ml("clean", "--data", root, *folds)
    assert "the model itself judged" in done.stderr
    names = [path.relative_to(root).as_posix() for path in root.rglob("*.png")]
    write_annotations(root, {name: ballots_for(0) for name in names if "sad" in name})
    done = ml("clean", "--data", root, "--no-detect", "--out", out)
    assert "the folder's label was judged by nobody" in done.stderr
    write_annotations(root, {"train/sad/000.png": ballots_for(3)})
    done = ml("clean", "--data", root, "--no-detect", "--out", out)
    assert "the folder's label was judged as without votes" in done.stderr


def test_pictures_folder_given_by_a_dot_has_its_annotations(
    ml: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = write_dataset(tmp_path / "facial_emotion_images", 2)
    names = [path.relative_to(tmp_path).as_posix() for path in pictures.rglob("*.png")]
    write_annotations(tmp_path, {name: ballots_for(0) for name in names})
    monkeypatch.chdir(pictures)
    told = json.loads(ml("evaluate", "--data", ".", "--json").stdout)
    assert told["labels"] == "consensus"


def test_cleaning_that_found_all_labels_right_gives_no_share_of_nothing(
    ml: Command, tmp_path: Path
) -> None:
    root, out = write_dataset(tmp_path / "data", 2), tmp_path / "out"
    votes = {
        path.relative_to(root).as_posix(): ballots_for(emotion.position)
        for emotion in EMOTIONS
        for path in root.glob(f"*/{emotion}/*.png")
    }
    write_annotations(root, votes)
    done = ml("clean", "--data", root, "--out", out, "--no-votes", "--no-detect")
    assert "0 of 8 labels are wrong; AUROC none" in done.stderr
    assert "nan" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("eda", "--out", "OUT"),
        ("evaluate", "--labels", "folder"),
        ("robustness", "--labels", "folder"),
        ("framing", "--labels", "folder"),
        (
            *("train", "--labels", "folder", "--run", "OUT", "--architecture", "base"),
            *("--epochs", "1", "--threads", "1"),
        ),
        (
            *("compare", "--labels", "folder", "--out", "OUT", "--only", "base-grey"),
            *("--budget-minutes", "0.01", "--threads", "1"),
        ),
    ],
)
def test_votes_that_were_not_asked_for_stop_no_command(
    ml: Command, tmp_path: Path, command: tuple[str, ...]
) -> None:
    root = write_dataset(tmp_path / "data", {"train": 4, "validation": 2, "test": 2})
    (root / "annotations.csv").write_text("file;votes_happiness\n")
    filled = [word.replace("OUT", str(tmp_path / "out")) for word in command]
    ml(*filled, "--data", root)


def test_votes_that_were_asked_for_are_read_before_the_pictures(
    ml: Command, tmp_path: Path
) -> None:
    root = write_dataset(tmp_path / "data", 1)
    (root / "annotations.csv").write_text("file;votes_happiness\n")
    done = ml(
        *("evaluate", "--data", root, "--labels", "folder", "--agreed", "0.9"), code=2
    )
    assert "Commas part the columns" in done.stderr


def test_votes_that_were_not_asked_for_stop_no_cleaning(
    ml: Command, tmp_path: Path
) -> None:
    root = write_dataset(tmp_path / "data", 2)
    (root / "annotations.csv").write_text("file;votes_happiness\n")
    out = tmp_path / "out"
    done = ml("clean", "--data", root, "--out", out, "--no-votes", "--no-detect")
    assert "Not judged by the votes" in done.stderr
    assert (out / "cleaned.csv").exists()
    done = ml("clean", "--data", root, "--out", out, "--no-detect", code=2)
    assert "Commas part the columns" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "--data", "nowhere"), "is no folder"),
        (("clean", "--data", "ml"), "has no folder train"),
        (("evaluate", "--data", "[/b]"), "[/b] is no folder"),
        (
            ("evaluate", "--data", "{data}", "--out", "Makefile"),
            "file is no folder",
        ),
        (("eda", "--data", "{data}", "--out", "Makefile/x"), "file is no folder"),
        (("features", "--data", "{data}", "--out", "ml"), "ml is no file"),
        (("predict", "x.jpg", "--model", "nowhere.onnx"), "nowhere.json cannot"),
        (("export", "--data", ".", "--run", "r"), "Missing option"),
        (("compare", "--data", "{data}", "--only", "alexnet"), "Choose from base-grey"),
        (("compare", "--data", "{data}", "--pretrained", "x"), "vgg16=FILE"),
        (
            ("compare", "--data", "{data}", *("--pretrained", "vgg16=x.pth") * 2),
            "vgg16-rgb-pretrained would stand twice",
        ),
        (("compare", "--data", "{data}", "--budget-minutes", "inf"), "Invalid value"),
        (("compare", "--data", "{data}", "--budget-minutes", "nan"), "Invalid value"),
        (
            ("train", "--data", "{data}", "--run", "r", "--teacher-share", "nan"),
            "Invalid value",
        ),
        (("evaluate", "--data", "{data}", "--agreed", "nan"), "Invalid value"),
        (("train", "--data", "{data}", "--run", "r", "--warmup", "inf"), "Invalid"),
        (("train", "--data", "{data}", "--run", "Makefile"), "is no folder"),
        (("train", "--data", "{data}", "--run", "r", "--seed", "9" * 30), "Invalid"),
        (
            ("train", "--data", "{data}", "--run", "r", "--architecture", "alexnet"),
            "unknown network 'alexnet'",
        ),
        (
            ("train", "--data", "{data}", "--run", "r", "--precision", "int1"),
            "unknown precision",
        ),
        (
            ("train", "--data", "{data}", "--run", "r", "--learning-rate", "inf"),
            "learning_rate must be a positive number",
        ),
    ],
)
def test_mistakes_end_with_a_sentence(
    ml: Command, arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    root = write_dataset(tmp_path / "data", 1)
    filled = [argument.replace("{data}", str(root)) for argument in arguments]
    assert message in ml(*filled, code=2).stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("compare", "--pretrained", "vgg16=typo.pth"), "typo.pth cannot be used"),
        (("compare", "--pretrained", "vgg61=Makefile"), "unknown network 'vgg61'"),
        (("train", "--run", "r", "--weights", "typo.pth"), "typo.pth cannot be used"),
        (("train", "--run", "r", "--manifest", "typo.csv"), "typo.csv cannot be read"),
        (("train", "--run", "r", "--device", "abacus"), "no device 'abacus'"),
        (("compare", "--device", "abacus"), "no device 'abacus'"),
        (
            ("train", "--run", "r", "--channels", "3", "--teacher", str(SHIPPED_MODEL)),
            "a teacher must read the same",
        ),
        (
            ("export", "--run", "r", "--out", "m.onnx", "--version", "mien 8"),
            "the version 'mien 8' will not do",
        ),
        (("evaluate", "--agreed", "0.9"), "leave --agreed out"),
    ],
)
def test_mistake_is_told_before_the_pictures_are_read(
    ml: Command, tmp_path: Path, command: tuple[str, ...], message: str
) -> None:
    done = ml(*command, "--data", write_dataset(tmp_path, 1), code=2)
    assert message in done.stderr
    assert "Reading" not in done.stderr


def test_damaged_start_is_told_before_another_network_is_trained(
    ml: Command, tmp_path: Path
) -> None:
    damaged, out = tmp_path / "damaged.pth", tmp_path / "out"
    damaged.write_bytes(b"no weights")
    done = ml(
        *("compare", "--data", write_dataset(tmp_path / "data", 3), "--out", out),
        *("--pretrained", f"base={damaged}", "--budget-minutes", "0.1"),
        *("--only", "base-grey", "--only", "base-rgb-pretrained"),
        code=2,
    )
    assert "base-rgb-pretrained:" in done.stderr
    assert "damaged" in done.stderr
    assert not out.exists()


def test_more_threads_than_a_machine_can_use_are_refused(
    ml: Command, tmp_path: Path
) -> None:
    for option in ("--threads", "--loader-threads"):
        done = ml(
            "train", "--run", tmp_path, "--data", tmp_path, option, "1000000", code=2
        )
        assert option in done.stderr
        assert "Invalid value" in done.stderr


def test_faces_that_nobody_agrees_on_are_refused_before_the_work(
    ml: Command, tmp_path: Path
) -> None:
    counts = {"train": 8, "validation": 2, "test": 2}
    data = write_dataset(tmp_path / "data", counts)
    judging = [*(data / "validation").rglob("*.png"), *(data / "test").rglob("*.png")]
    names = [path.relative_to(data).as_posix() for path in judging]
    write_annotations(data, {name: ballots_for(0, 5) for name in names})
    run, out = tmp_path / "run", tmp_path / "out"
    options = ("--architecture", "base", "--epochs", "1", "--threads", "1")
    ml("train", "--data", data, "--run", run, *options)
    export = ("export", "--run", run, "--out", tmp_path / "m.onnx", "--version", "v")
    compare = ("compare", "--only", "base-grey", "--out", out, "--threads", "1")
    for command in (("evaluate",), ("robustness",), ("framing",), export, compare):
        done = ml(*command, "--data", data, code=2)
        assert "Try --labels folder" in done.stderr
    assert not out.exists()
    done = ml(*export, "--run", run, "--data", data, code=2)
    assert "Try --labels folder" in done.stderr
    assert "Reading train" not in done.stderr
    ml(*export, "--data", data, "--labels", "folder")
    assert set(load_manifest(tmp_path / "m.onnx").metrics["test"]) == {"folder"}
    done = ml("evaluate", "--data", data, "--agreed", "0.9", code=2)
    assert "give a smaller --agreed" in done.stderr


def test_features_that_ship_with_the_code_are_written_over_by_nobody_unasked(
    ml: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_dataset(tmp_path / "data", 3)
    shipped = tmp_path / "retraining.npz"
    shipped.write_bytes(b"shipped")
    monkeypatch.setattr("ml.retraining.SHIPPED_RETRAINING", shipped)
    for path in (SHIPPED_MODEL, manifest_path(SHIPPED_MODEL)):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    model = tmp_path / SHIPPED_MODEL.name

    done = ml("features", "--data", data, "--model", model, code=2)

    assert "to write with --out" in " ".join(done.stderr.split())
    assert shipped.read_bytes() == b"shipped"
    ml("features", "--data", data, "--model", model, "--out", shipped)
    assert shipped.read_bytes() != b"shipped"


def test_faces_without_a_vote_for_an_emotion_leave_no_file(
    ml: Command, tmp_path: Path
) -> None:
    data = write_dataset(tmp_path / "data", 2)
    names = [path.relative_to(data).as_posix() for path in data.rglob("*.png")]
    write_annotations(data, {name: ballots_for(NO_LABEL) for name in names})

    done = ml("features", "--data", data, "--out", tmp_path / "kept.npz", code=2)

    assert "0 faces are left to train on" in done.stderr
    assert not (tmp_path / "kept.npz").exists()
