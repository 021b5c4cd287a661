"""Production's processes and settings: several of each, one photo through all."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.pictures import astronaut, encode
from tests.production import (
    AS_THE_PROXY,
    METRICS_TOKEN,
    WEB_PROCESSES,
    WORKERS,
    production,
)
from tests.services import free_port
from tests.stack import ROOT, Stack, environment, prepare, processes_of
from webapp.config.processes import ProcessGroup

PHOTOS = 60
RATE = 120
"""Uploads a minute that one address may make."""
WORKER_NAMES = {"inference", "inference2", "inference3"}


_COME_BACK = """
import os
from django.core.files.storage import default_storage
from django.core.management import call_command
from webapp.photos.models import Photo
from webapp.photos.selectors import get_photo_result

call_command("restore", os.environ["BACKUP"])
call_command("restore", os.environ["BACKUP"], replace=True)
photo = Photo.objects.get(pk=os.environ["PHOTO"])
label = get_photo_result(photo=photo).faces[0].label
print(label, default_storage.size(photo.file_name))
"""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="mien-prod-") as folder:
        home = Path(folder) / "home"
        with production(Path(folder)) as variables, Stack(home, variables) as running:
            running.headers = AS_THE_PROXY
            # Web answers before workers take work.
            for name in WORKER_NAMES:
                running.wait_for(rf"{name}@\S+ ready\.")
            yield running
        assert processes_of(home) == []


def eventually(condition: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def workers(stack: Stack) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(stack.process.pid).children()
        if "inference,default" in child.cmdline()
    ]


def readers(log: str) -> Counter[str]:
    """How many photos each worker read, by its lines in the log."""
    return Counter(
        line.partition("|")[0].strip()
        for line in log.splitlines()
        if '"name": "webapp.jobs"' in line and '"faces": 1' in line
    )


def test_photo_goes_through_all_processes(stack: Stack) -> None:
    photo = stack.result(stack.upload(encode(astronaut())))

    assert photo["status"] == "done"
    assert len(photo["faces"]) == 1
    eventually(lambda: len(stack.service("web").children()) == WEB_PROCESSES)
    assert len(workers(stack)) == WORKERS


def test_many_at_once_are_read_once_each_by_several_workers(stack: Stack) -> None:
    image = encode(astronaut().resize((256, 256)))
    before = len(stack.output)
    paths: list[str] = []
    with ThreadPoolExecutor(8) as pool:

        def give(count: int, address: str) -> None:
            own = {**AS_THE_PROXY, "X-Forwarded-For": address}
            paths.extend(pool.map(stack.upload, [image] * count, [own] * count))

        give(PHOTOS, "192.0.2.1")
        addresses = (f"192.0.2.{number}" for number in range(2, 50))

        def all_have_read() -> bool:
            if set(readers(stack.output[before:])) == WORKER_NAMES:
                return True
            # Where uploads are slow, one worker may keep up with them while another
            # gets no time: some more, until each had its turn.
            give(8, next(addresses))
            return False

        eventually(all_have_read)

    results = [stack.result(path) for path in paths]

    assert len(set(paths)) == len(paths)
    assert {result["status"] for result in results} == {"done"}
    assert {len(result["faces"]) for result in results} == {1}
    eventually(lambda: readers(stack.output[before:]).total() >= len(paths))
    assert readers(stack.output[before:]).total() == len(paths)


def test_rate_holds_across_processes_and_for_no_forged_address(stack: Stack) -> None:
    """Each web process alone would allow as many. What is no photo counts, too."""

    def try_one(number: int) -> int:
        own = {"X-Forwarded-For": f"10.0.{number // 250}.{number % 250}, 203.0.113.9"}
        return post_photo(stack.port, b"no pixels", {**AS_THE_PROXY, **own})

    began_at = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        said = Counter(pool.map(try_one, range(RATE + 40)))
    seconds = time.monotonic() - began_at

    assert set(said) <= {415, 429}
    # The window slides: a minute's turn may let a few more in, and no more than that,
    # and where it took longer than a minute, what came free since then.
    since = max(0.0, seconds - 60)
    assert RATE <= said[415] <= RATE + 10 + since * RATE / 60


def test_figures_are_those_of_all_processes(stack: Stack) -> None:
    image = encode(astronaut().resize((256, 256)))
    for path in [stack.upload(image) for _ in range(4)]:
        stack.result(path)
    secret = Path(stack.environment[f"{METRICS_TOKEN}_FILE"]).read_text().strip()
    stack.headers = {**AS_THE_PROXY, "Authorization": f"Bearer {secret}"}
    try:
        answers = [stack.request("GET", "/metrics") for _ in range(6)]
    finally:
        stack.headers = AS_THE_PROXY

    assert {status for status, _ in answers} == {200}
    # Whichever web process answers, it tells what workers and the other one counted.
    totals = [
        float(re.search(r'mien_stage_seconds_count\{stage="total"\} (.*)', said)[1])
        for _, said in answers
    ]
    assert min(totals) == max(totals) >= 4
    assert "mien_workers" in answers[0][1]
    assert stack.request("GET", "/metrics")[0] == 404


def test_everybody_says_that_they_are_there(stack: Stack) -> None:
    code = (
        "from webapp.operations.selectors import present_workers as p;"
        "print(*p().values_list('name', flat=True))"
    )
    wanted = {"beat", "training", "inference", "inference2", "inference3"}

    def seen() -> set[str]:
        said = stack.manage("shell", "--no-imports", "-c", code, MIEN_DEMO="0")
        return {name.partition("@")[0] for name in said.split()}

    eventually(lambda: wanted <= seen())


def test_worker_host_joins_by_three_variables_as_a_container_does(
    stack: Stack, tmp_path: Path
) -> None:
    """No secret key; figures at a port of its own; a file that says it is alive."""
    names = [f"MIEN_{name}_URL_FILE" for name in ("DATABASE", "BROKER", "STORAGE")]
    port = free_port()
    token = f"{METRICS_TOKEN}_FILE"
    given = {name: stack.environment[name] for name in [*names, token]} | {
        "MIEN_WORKER_PROCESSES": "1",
        "MIEN_METRICS_PORT": str(port),
        "MIEN_ALIVE_FILE": str(tmp_path / "alive"),
        "MIEN_LOG_FORMAT": "json",
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),
    }
    secret = Path(given[token]).read_text().strip()
    group = ProcessGroup()
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "webapp.config.serve", "inference"],
            cwd=ROOT,
            env=environment(tmp_path / "home", given),
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=group.id,
        )

    def figures(authorization: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            headers = {"Authorization": authorization}
            connection.request("GET", "/metrics", headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    try:
        eventually(lambda: figures(f"Bearer {secret}")[0] == 200)
        assert figures("")[0] == 404
        image = encode(astronaut().resize((256, 256)))
        own = {**AS_THE_PROXY, "X-Forwarded-For": "192.0.2.56"}

        def has_read() -> bool:
            stack.result(stack.upload(image, own))
            said = figures(f"Bearer {secret}")[1]
            return 'mien_stage_seconds_count{stage="total"}' in said

        eventually(has_read)
        health = subprocess.run(
            [sys.executable, "deploy/health.py", "worker"],
            cwd=ROOT,
            env={**os.environ, "MIEN_ALIVE_FILE": given["MIEN_ALIVE_FILE"]},
        )
        assert health.returncode == 0
        worker.terminate()
        assert worker.wait(90) == 0
    finally:
        group.kill()


def test_it_is_ready_and_says_so_without_tls(stack: Stack) -> None:
    def said() -> str:
        connection = http.client.HTTPConnection("127.0.0.1", stack.port)
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        assert response.status == 200
        return str(json.loads(response.read())["status"])

    # Once the beat, which starts last, has said that it is there.
    eventually(lambda: said() == "ok")


def test_request_can_be_followed_into_the_worker(stack: Stack) -> None:
    stack.headers = {**AS_THE_PROXY, "X-Request-ID": "followed-0123456789"}
    try:
        stack.result(stack.upload(encode(astronaut().resize((256, 256)))))
    finally:
        stack.headers = AS_THE_PROXY

    lines = [
        json.loads(line.partition("| ")[2])
        for line in stack.output.splitlines()
        if "followed-0123456789" in line
    ]
    routes = {line.get("route") for line in lines}
    assert "api-photos" in routes
    assert all(line["request_id"] == "followed-0123456789" for line in lines)
    [job] = [line for line in lines if line["name"] == "webapp.jobs"]
    assert job["job_id"]
    assert job["faces"] == 1


def test_what_came_without_tls_is_sent_to_it(stack: Stack) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", stack.port)
    connection.request("GET", "/")
    response = connection.getresponse()

    assert response.status == 301
    assert (response.headers["Location"] or "").startswith("https://")


def test_cookies_and_headers_are_those_of_a_public_site(stack: Stack) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", stack.port)
    connection.request("GET", "/accounts/login/", headers=AS_THE_PROXY)
    response = connection.getresponse()

    assert response.status == 200
    assert "max-age=31536000" in response.headers["Strict-Transport-Security"]
    cookies = response.headers.get_all("Set-Cookie")
    assert cookies
    for cookie in cookies:
        assert "Secure" in cookie
        assert "HttpOnly" in cookie
    assert "unsafe" not in response.headers["Content-Security-Policy"]


def test_release_is_replaced_while_photos_come_in(stack: Stack) -> None:
    """Web by SIGHUP, then one worker after the other: what compose and systemd do."""
    image = encode(astronaut().resize((256, 256)))
    paths: list[str] = []
    errors: list[Exception] = []
    stop = threading.Event()

    def upload() -> None:
        for number in itertools.count():
            if stop.wait(0.2):
                break
            # More than one address may send in a minute.
            address = f"192.0.2.{60 + number // RATE}"
            own = {**AS_THE_PROXY, "X-Forwarded-For": address}
            try:
                paths.append(stack.upload(image, own))
            except (AssertionError, OSError, http.client.HTTPException) as error:
                errors.append(error)

    @contextmanager
    def while_photos_come_in() -> Iterator[None]:
        """One at least is accepted from here to the end."""
        so_far = len(paths)
        yield
        eventually(lambda: errors or len(paths) > so_far)

    uploader = threading.Thread(target=upload)
    uploader.start()
    try:
        eventually(lambda: errors or paths)
        web = stack.service("web")
        before = {child.pid for child in web.children()}
        with while_photos_come_in():
            web.send_signal(signal.SIGHUP)
            eventually(
                lambda: (
                    not before & {child.pid for child in web.children()}
                    and len(web.children()) == WEB_PROCESSES
                )
            )
        for worker in workers(stack):
            with while_photos_come_in():
                worker.terminate()
                eventually(lambda worker=worker: not worker.is_running())
                eventually(lambda: len(workers(stack)) == WORKERS)
    finally:
        stop.set()
        uploader.join()

    assert errors == []
    for path in paths:
        assert stack.result(path)["status"] == "done"


def test_backup_of_production_comes_back_on_one_machine(
    stack: Stack, tmp_path: Path
) -> None:
    """From PostgreSQL and S3 to SQLite and a folder."""
    photo = stack.result(stack.upload(encode(astronaut())))
    said = stack.manage("backup", str(tmp_path / "b.tar"), MIEN_DEMO="0")
    assert "files" in said
    # In one process: to start each by itself would take longer than all that they do.
    found = subprocess.run(
        [sys.executable, "manage.py", "shell", "--no-imports", "-c", _COME_BACK],
        cwd=ROOT,
        env=environment(
            prepare(tmp_path / "home"),
            {
                "MIEN_DEMO": "1",
                "BACKUP": str(tmp_path / "b.tar"),
                "PHOTO": photo["id"],
            },
        ),
        capture_output=True,
        text=True,
    )

    assert found.returncode == 0, found.stderr
    label, size = found.stdout.splitlines()[-1].split()
    assert label == photo["faces"][0]["label"]
    assert int(size) > 1000


def test_no_known_password_opens_it(stack: Stack) -> None:
    url = Path(stack.environment["MIEN_DATABASE_URL_FILE"]).read_text().strip()
    with psycopg.connect(url) as database:
        assert database.execute("SELECT count(*) FROM accounts_user").fetchone() == (0,)


def post_photo(port: int, image: bytes, headers: dict[str, str]) -> int:
    boundary = "0123456789abcdef"
    body = (
        f"--{boundary}\r\nContent-Disposition: form-data; "
        'name="image"; filename="p.jpg"\r\n\r\n'
    ).encode()
    body += image + f"\r\n--{boundary}--\r\n".encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(
            "POST",
            "/api/v1/photos",
            body,
            {**headers, "Content-Type": f"multipart/form-data; boundary={boundary}"},
        )
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()
