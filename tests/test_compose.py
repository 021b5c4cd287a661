"""``compose.yaml`` without a Docker engine: what it promises, read from the file, and
those of its commands that can run here."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from django.conf import settings

from tests.services import Services, free_port, install_missing, program
from tests.stack import ROOT
from webapp.config import env, serve
from webapp.training.models import TrainingRun
from webapp.training.services.run_dirs import run_dir

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
NAMES = sorted(SERVICES)
OURS = [name for name in NAMES if str(SERVICES[name]["image"]).startswith("mien-")]
SITE = [name for name in NAMES if SERVICES[name].get("build", {}).get("context") == "."]


def draw_secrets(folder: Path) -> None:
    subprocess.run(
        [sys.executable, str(ROOT / "deploy/draw_secrets.py"), str(folder)],
        check=True,
        capture_output=True,
    )


def dockerfile(path: str) -> str:
    return (ROOT / path / "Dockerfile").read_text(encoding="utf-8")


def test_every_part_is_there() -> None:
    assert {
        *("proxy", "web", "inference", "inference-gpu", "training", "training-gpu"),
        *("beat", "postgres", "redis", "store", "prepare"),
    } == set(SERVICES)


@pytest.mark.parametrize("name", NAMES)
def test_part_is_locked_down(name: str) -> None:
    part = SERVICES[name]

    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", part["user"]), "not root, by number"
    assert part["read_only"] is True
    assert part["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in part["security_opt"]
    assert "privileged" not in part
    assert "docker.sock" not in json.dumps(part)


@pytest.mark.parametrize("name", NAMES)
def test_part_has_limits_a_health_check_and_a_bounded_log(name: str) -> None:
    part = SERVICES[name]
    limits = part["deploy"]["resources"]["limits"]

    assert {"cpus", "memory", "pids"} <= set(limits)
    assert part["logging"]["options"]["max-size"]
    if name == "prepare":  # It ends by itself.
        assert part["healthcheck"] == {"disable": True}
    else:
        assert part["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
        assert part["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SITE)
def test_part_computes_on_no_more_threads_than_it_has_cores(name: str) -> None:
    """NumPy would start as many as the host has, against the limit of processes."""
    (image,) = re.findall(r"^\s+OMP_NUM_THREADS=(\d+)$", dockerfile("."), re.M)
    given = {"OMP_NUM_THREADS": image, **SERVICES[name]["environment"]}
    cpus = SERVICES[name]["deploy"]["resources"]["limits"]["cpus"]

    environment = serve.environment_of((SERVICES[name]["command"] or ["web"])[0], given)

    alone = name.startswith("training")
    assert environment["OMP_NUM_THREADS"] == (cpus if alone else "1")


def test_training_on_a_host_of_its_own_takes_every_core() -> None:
    assert serve.environment_of("training", {})["OMP_NUM_THREADS"] == str(serve.cores())
    assert serve.environment_of("inference", {})["OMP_NUM_THREADS"] == "1"
    chosen = serve.environment_of("inference", {"OMP_NUM_THREADS": "3"})
    assert chosen["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize("name", NAMES)
def test_image_is_pinned(name: str) -> None:
    image = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", SERVICES[name]["image"])
    tag = image.partition(":")[2]

    assert tag
    assert tag != "latest"
    if name not in OURS:
        assert re.search(r"\d+\.\d+", tag)
        assert "build" not in SERVICES[name]


def test_bases_of_our_images_are_pinned() -> None:
    for folder in (".", "deploy/proxy", "deploy/store"):
        text = dockerfile(folder)
        bases = re.findall(r"^(?:FROM|ARG PYTHON_IMAGE=)\s*(\S+:\S+)", text, re.M)
        assert bases, folder
        for base in bases:
            assert re.search(r":\d+\.\d+", base), base
        assert re.search(r"^USER [$\d]", text, re.M), folder


def test_no_secret_stands_in_it_and_none_has_a_default() -> None:
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    for name, part in SERVICES.items():
        for variable, value in (part.get("environment") or {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|KEY", variable):
                assert variable.endswith("_FILE"), f"{name}: {variable}"
                assert str(value).startswith("/run/secrets/"), f"{name}: {variable}"
    assert not re.search(r"://\w*:[^@/\s]+@", text)
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"deploy/secrets/{name}"}
    if (ROOT / ".git").exists() and shutil.which("git"):
        ignored = subprocess.run(
            ["git", "check-ignore", "-q", "deploy/secrets/secret_key"], cwd=ROOT
        )
        assert ignored.returncode == 0


@pytest.mark.parametrize("name", NAMES)
def test_part_is_given_the_secrets_that_it_reads_and_no_other(name: str) -> None:
    read = set(re.findall(r"/run/secrets/(\w+)", json.dumps(SERVICES[name])))

    assert set(SERVICES[name].get("secrets", [])) == read
    assert read <= set(COMPOSE["secrets"])


def test_workers_do_not_hold_the_key_that_signs() -> None:
    for name in ("inference", "inference-gpu", "training", "training-gpu", "beat"):
        assert "secret_key" not in SERVICES[name]["secrets"]


def test_only_the_proxy_is_reached_from_outside() -> None:
    assert [name for name in NAMES if "ports" in SERVICES[name]] == ["proxy"]
    assert COMPOSE["networks"]["back"] == {"internal": True}
    for name in NAMES:
        if name != "proxy":
            assert SERVICES[name]["networks"] == ["back"]


def test_proxy_lets_through_all_that_the_site_takes() -> None:
    caddyfile = (ROOT / "deploy/proxy/Caddyfile").read_text(encoding="utf-8")
    units = {"MB": 1000**2, "MiB": 1024**2}

    said = re.search(r"max_size (\d+)(\w+)", caddyfile)

    assert said
    assert int(said[1]) * units[said[2]] > max(settings.REQUEST_MAX_BYTES_AT.values())


def test_every_secret_is_drawn_once_and_kept(tmp_path: Path) -> None:
    draw_secrets(tmp_path / "s")
    first = {path.name: path.read_text() for path in (tmp_path / "s").iterdir()}
    draw_secrets(tmp_path / "s")

    assert set(COMPOSE["secrets"]) <= set(first)
    assert first == {p.name: p.read_text() for p in (tmp_path / "s").iterdir()}
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o700
    assert len(first["secret_key"].strip()) >= 50
    assert len(set(first.values())) == len(first)
    identities = json.loads(first["store_identities"])["identities"]
    options = env.storage(first["storage_url"].strip())["OPTIONS"]
    assert identities[0]["credentials"] == [
        {"accessKey": options["access_key"], "secretKey": options["secret_key"]}
    ]


@pytest.mark.parametrize("name", [n for n in SITE if n != "prepare"])
def test_command_of_the_site_exists(name: str) -> None:
    assert 'ENTRYPOINT ["python", "-m", "webapp.config.serve"]' in dockerfile(".")
    [role] = SERVICES[name]["command"]

    command = serve._COMMANDS[role](dict(os.environ))

    assert command[0] == sys.executable
    assert SERVICES[name]["healthcheck"]["test"][:3] == [
        *("CMD", "python", "deploy/health.py")
    ]
    requirements = SERVICES[name]["build"]["args"]["REQUIREMENTS"]
    assert (ROOT / f"deploy/requirements/{requirements}.lock").exists()


def test_settings_load_from_its_variables_and_secrets(tmp_path: Path) -> None:
    """Web's and a worker's, with the drawn secrets at their place."""
    folder = tmp_path / "s"
    draw_secrets(folder)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MIEN_")}
    for name in ("web", "inference"):
        given = {
            variable: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", str(value)).replace(
                "/run/secrets", str(folder)
            )
            for variable, value in SERVICES[name]["environment"].items()
        }
        result = subprocess.run(
            [
                *(sys.executable, "-c"),
                "from webapp.config import settings as s; "
                "d = s.DATABASES['default']; "
                "print(d['HOST'], bool(d['PASSWORD']), s.SECURE, s.NUM_PROXIES, "
                "s.BROKER_URL.startswith('redis://:'), bool(s.METRICS_TOKEN), "
                "s.STORAGES['default']['OPTIONS']['endpoint_url'])",
            ],
            cwd=ROOT,
            env=serve.environment_of(
                name, {**kept, "MIEN_HOME": str(tmp_path), **given}
            ),
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        proxies = "1" if name == "web" else "0"
        assert result.stdout.split() == [
            *("postgres", "True", "True", proxies, "True", "True"),
            "http://store:8333",
        ]


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("training")])
def test_checkpoint_of_a_run_has_a_place_that_outlives_the_container(name: str) -> None:
    text = dockerfile(".")
    home = Path(re.findall(r"\bMIEN_HOME=(\S+)", text)[0])
    kept = run_dir(TrainingRun(pk=1)).relative_to(settings.MIEN_HOME)
    mounts = dict(
        reversed(volume.split(":", 1)) for volume in SERVICES[name]["volumes"]
    )

    [target] = [path for path in mounts if (home / kept).is_relative_to(path)]

    assert mounts[target] in COMPOSE["volumes"]
    # A new volume belongs to whom the image says.
    assert re.search(rf"mkdir -p .*{target}\b", text)
    assert f"chown ${{USER_ID}}:${{USER_ID}} {target}" in text
    assert SERVICES[name]["user"] == "10001:10001"
    assert "ARG USER_ID=10001" in text


def test_broker_takes_its_command_and_its_password_alone(tmp_path: Path) -> None:
    install_missing()
    draw_secrets(tmp_path / "s")
    port = free_port()
    words = [
        word.replace("/run/secrets", str(tmp_path / "s"))
        for word in SERVICES["redis"]["command"]
    ]
    services = Services(tmp_path)
    try:
        services._launch(
            [
                *(program(words[0]), *words[1:]),
                *("--port", str(port), "--dir", str(tmp_path)),
            ],
            "redis.log",
        )
        password = (tmp_path / "s" / "redis_password").read_text().strip()
        url = env.with_password(f"redis://127.0.0.1:{port}/0", password)
        with redis.Redis.from_url(url, retry_on_error=[redis.ConnectionError]) as known:
            for _ in range(1200):
                try:
                    assert known.ping()
                    break
                except redis.ConnectionError:
                    time.sleep(0.05)
            assert known.config_get("appendonly") == {"appendonly": "yes"}
        with (
            redis.Redis.from_url(f"redis://127.0.0.1:{port}/0") as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()
    finally:
        services.stop()


def test_what_the_image_runs_is_in_it() -> None:
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile("."), re.M)

    assert kept[0] == "*"
    for words in copied:
        for path in words.split():
            concrete = re.sub(r"\$\{\w+\}", "serving", path)
            assert (ROOT / concrete).exists(), path
            top = concrete if concrete.startswith("deploy/") else path
            assert any(f"!{top}".startswith(line) for line in kept[1:]), path


def test_locks_hold_what_the_project_pins_and_hashes_of_all() -> None:
    lock = runpy.run_path(str(ROOT / "deploy/lock.py"))
    for image in ("serving", "serving-gpu", "training"):
        text = (ROOT / f"deploy/requirements/{image}.lock").read_text()
        locked = dict(re.findall(r"^([\w.-]+)==(\S+) \\$", text, re.M))
        assert len(locked) > 40
        for pin in lock["wanted"](image):
            asked = re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?==(\S+)", pin)
            assert asked is not None, pin
            name = asked[1].lower().replace("_", "-")
            assert locked.get(name) == asked[2], f"{image}: {pin}: run make lock"
        blocks = re.split(r"^(?=[\w.-]+==)", text, flags=re.M)[1:]
        assert all("--hash=sha256:" in block for block in blocks)
        assert ("torch" in locked) == (image == "training")
        assert ("onnxruntime" in locked) != ("onnxruntime-gpu" in locked)
        for left_out in ("pytest", "moto", "opencv-python-headless"):
            assert left_out not in locked


class TestHealthCheck:
    def run(self, *words: str, **given: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "deploy/health.py"), *words],
            env={**os.environ, **given},
            capture_output=True,
            text=True,
        )

    def test_worker_is_well_while_its_file_is_young(self, tmp_path: Path) -> None:
        alive = tmp_path / "alive"
        assert (
            "no sign of life yet"
            in self.run("worker", MIEN_ALIVE_FILE=str(alive)).stderr
        )
        alive.touch()
        assert self.run("worker", MIEN_ALIVE_FILE=str(alive)).returncode == 0
        os.utime(alive, (0, 0))
        old = self.run("worker", MIEN_ALIVE_FILE=str(alive))
        assert old.returncode == 1
        assert "no sign of life for" in old.stderr

    def test_web_that_does_not_answer_is_not_well(self) -> None:
        said = self.run("web", MIEN_BIND=f"127.0.0.1:{free_port()}")

        assert said.returncode == 1
        assert "does not answer" in said.stderr

    def test_other_words_are_explained(self) -> None:
        assert "usage" in self.run("broker").stderr


def test_dashboard_asks_for_figures_that_exist() -> None:
    dashboard = json.loads((ROOT / "deploy/grafana-dashboard.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
        for name in re.findall(r"mien_\w+", target["expr"])
    }
    told = "".join(
        (ROOT / path).read_text()
        for path in ("webapp/core/metrics.py", "webapp/operations/exposition.py")
    )

    assert len(asked) >= 10
    for name in asked:
        plain = re.sub(r"_(total|bucket|count|sum)$", "", name)
        assert f'"{plain}"' in told, name
