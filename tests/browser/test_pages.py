"""Every page outside training, as whoever it is for: axe finds nothing serious on it,
wide and light, narrow and dark, and nothing scrolls sideways.

Which pages there are, ``TABLE`` in ``tests/test_authorisation.py`` says, which the URL
resolver keeps complete. A new one needs a line in ``PAGES`` here, or in ``FILES``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final, Literal

import numpy as np
import pytest
from django.urls import get_resolver, reverse
from PIL import Image
from playwright.sync_api import Page, expect

from ml.labels import EMOTIONS
from ml.tests.faces import draw_face
from tests.browser.accessibility import serious_violations
from tests.browser.conftest import OpenPage
from tests.browser.pictures import keep_page
from tests.browser.test_batches import give as give_many
from tests.browser.test_mine import give
from tests.pictures import astronaut, encode, hopper, landscape
from tests.stack import Stack, own_site
from tests.test_authorisation import patterns, rows
from webapp.accounts.services import DEMO_PEOPLE

PASSWORD: Final = "a-long-enough-word"
_PASSWORDS: Final = {name: password for name, _, password in DEMO_PEOPLE}
UPLOADS_A_MINUTE: Final = 48
# Colours do not depend on the width, nor anything else on the scheme.
SCHEMES: Final[dict[int, Literal["light", "dark"] | None]] = {
    1280: "light",
    390: "dark",
    320: None,
}
"""By width; None where nothing but the width is looked at."""
OPEN_ALL: Final = "() => document.querySelectorAll('details').forEach(d => d.open = %s)"
PAGE_WIDTH: Final = "() => document.documentElement.scrollWidth"

PAGES: Final[dict[str, str]] = {
    **dict.fromkeys(
        (
            *("photos:home", "photos:camera", "photos:mine", "photos:result"),
            *("photos:shared", "photos:batch", "flags:receipt"),
            *("accounts:login", "accounts:invitation"),
        ),
        "visitor",
    ),
    **dict.fromkeys(
        (
            "curation:dashboard",
            "curation:desk",
            "curation:me",
            "accounts:api-keys",
            "accounts:password",
        ),
        "ada",
    ),
    **dict.fromkeys(
        (
            *("curation:disputes", "curation:alike", "curation:golds"),
            *("curation:history", "curation:people", "curation:person"),
        ),
        "jo",
    ),
    "operations:status": "max",
}
"""Who goes where: a visitor, the annotator ada, the adjudicator jo, the admin max."""

FILES: Final = {
    *("livez", "api-schema", "operations:readyz", "operations:metrics"),
    *("photos:annotated", "photos:batch-csv", "photos:export-csv"),
    *("photos:export-json", "photos:heat", "photos:image", "photos:thumbnail"),
    *("photos:shared-heat", "photos:shared-image"),
    *("curation:export", "curation:face", "curation:photo"),
    *("curation:judged-face", "curation:judged-photo"),
    *("accounts:logout", "admin:jsi18n", "admin:logout"),
}
"""What answers a GET with something else than a page."""

NOT_OURS: Final = ("api-", "training:", "admin:")
"""Answers to programs and what Swagger UI draws of them; pages that test_training.py
looks at; Django's own."""

# Two people agree on three faces, three disagree on one, somebody is paused.
_PEOPLE: Final = """
import json, os
from webapp.accounts.models import User
from webapp.curation.models import DatasetImport, Pause
from webapp.curation.services import claims, quality, votes

password = os.environ["PASSWORD"]
people = {
    name: User.objects.create_user(name, password=password, role=role)
    for name, role in (
        ("ben", "annotator"), ("cat", "annotator"), ("pat", "annotator"),
        ("jo", "adjudicator"),
    )
}
people["ada"] = User.objects.get(username="ada")
said = json.loads(os.environ["SAID"])
for name in ("ben", "ada", "cat"):
    for claim in claims.claim_faces(person=people[name], count=10):
        verdict = said.get(str(claim.face.photo_id), {}).get(name)
        if verdict:
            votes.submit_correction(
                person=people[name], claim_id=claim.pk, verdict=verdict,
                comment="Hard to say." if verdict == "unclear" else "", key="1",
                duration_ms=900,
            )
    claims.give_back_claims(person=people[name])
Pause.objects.create(
    person=people["pat"],
    reason=quality._FRIENDLY.format(wrong=5, answers=12),
)
DatasetImport.objects.create(
    folder="/data/faces-2024", status="done", total=300, seen=300, queued_faces=12
)
from webapp.photos.models import Face
print(json.dumps({
    str(face.photo_id): str(face.pk) for face in Face.objects.filter(index=1)
}))
"""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A site of this module's own, with demo people and rates that can be reached."""
    rate = f"{UPLOADS_A_MINUTE}/minute"
    with own_site(MIEN_DEMO="1", MIEN_UPLOAD_RATE=rate) as running:
        yield running


@pytest.fixture(scope="module")
def site(stack: Stack) -> str:
    return f"http://127.0.0.1:{stack.port}"


def log_in(page: Page, name: str, password: str = "") -> None:
    page.goto("/accounts/login/")
    page.fill("#id_username", name)
    page.fill("#id_password", password or _PASSWORDS.get(name, PASSWORD))
    with page.expect_navigation():
        page.press("#id_password", "Enter")


def press(page: Page, button: str) -> None:
    """Press what brings another page, and wait for that one."""
    with page.expect_navigation():
        page.get_by_role("button", name=button).click()


def look(page: Page, what: str) -> list[str]:
    """What is wrong with the page as it stands, closed when wide, open when narrow."""
    trouble = []
    for width, scheme in SCHEMES.items():
        page.set_viewport_size({"width": width, "height": 844})
        page.evaluate(OPEN_ALL % str(width < 1000).lower())
        if (wide := page.evaluate(PAGE_WIDTH)) > width:
            trouble.append(f"{what}: {wide} pixels wide on {width}")
        if scheme is not None:
            page.emulate_media(color_scheme=scheme)
            trouble += [f"{what}: {line}" for line in serious_violations(page)]
    page.set_viewport_size({"width": 1280, "height": 844})
    page.evaluate(OPEN_ALL % "false")
    if what in PAGES:
        keep_page(page, what.replace(":", "-"))
    return trouble


def look_at(page: Page, path: str, what: str = "") -> list[str]:
    page.goto(path)
    return look(page, what or path)


def drawn_photo(number: int) -> bytes:
    """A photo of a cartoon face; no two are the same."""
    generator = np.random.default_rng(number)
    face = draw_face(EMOTIONS[number % 4], generator)
    return encode(face.resize((192, 192), Image.Resampling.BICUBIC).convert("RGB"))


def test_every_page_has_somebody_who_looks_at_it() -> None:
    known = {name for name, _ in patterns(get_resolver())}
    pages = {
        route
        for route, method in rows()
        if method == "GET" and not route.startswith(NOT_OURS)
    }
    unseen = pages - set(PAGES) - FILES
    assert not unseen, (
        f"Nobody looks at {', '.join(sorted(unseen))}: say in PAGES of "
        "tests/browser/test_pages.py who does, or in FILES that it is no page."
    )
    assert set(PAGES) <= known


def test_every_page_is_for_everybody(open_page: OpenPage, stack: Stack) -> None:
    """One site from its first minute on: first without anything in it."""
    visitor, ada, jo, admin = (open_page("/") for _ in range(4))
    pages = {"visitor": visitor, "ada": ada, "jo": jo, "max": admin}
    for name in ("ada", "max"):
        log_in(pages[name], name)
    trouble = look_at(visitor, reverse("photos:mine"), "no photos")
    for route in ("dashboard", "desk", "me", "disputes", "alike", "golds", "people"):
        address = reverse(f"curation:{route}")
        trouble += look_at(admin, address, f"empty {route}")
    trouble += look_at(ada, reverse("accounts:api-keys"), "no keys")

    # What visitors give, flag and share; what people say of it.
    trains = {"keep": "true", "train": "true"}
    portrait = give(visitor, encode(astronaut()), **trains)
    given = [portrait, give(visitor, encode(hopper()), **trains)]
    given += [give(visitor, drawn_photo(number), **trains) for number in range(8)]
    receipts = [
        visitor.request.post(
            f"/api/v1/photos/{photo}/faces/1/flag", data={"verdict": "sad"}
        ).json()["receipt"]
        for photo in given
    ]
    said: dict[str, dict[str, str]] = {
        given[0]: {"ben": "happy", "ada": "sad", "cat": "unclear"},
        **{photo: {"ben": "sad", "ada": "sad"} for photo in given[2:5]},
    }
    faces = json.loads(
        stack.manage(
            *("shell", "--no-imports", "-c", _PEOPLE),
            SAID=json.dumps(said),
            PASSWORD=PASSWORD,
        )
    )
    log_in(jo, "jo")
    visitor.goto("/camera/")
    files = {"field.jpg": encode(landscape()), "hopper.jpg": encode(hopper())}
    give_many(visitor, {**files, "notes.txt": b"no pixels"})
    with visitor.expect_navigation():
        visitor.evaluate("() => document.querySelector('[data-form]').submit()")
    expect(visitor.locator(".batch-progress[data-done]")).to_be_visible()
    batch = path_of(visitor.url)
    shared = visitor.request.post(f"/api/v1/photos/{portrait}/links").json()

    admin.goto(reverse("curation:people"))
    admin.fill("#note", "Nora, from the archive")
    press(admin, "Make a link")
    trouble += look(admin, "an invitation")
    invitation = re.search(r"/accounts/invitations/[^\"<\s]+", admin.content())
    assert invitation is not None

    special = {
        "photos:result": f"/photos/{portrait}/",
        "photos:shared": path_of(shared["url"]),
        "photos:batch": batch,
        "flags:receipt": path_of(receipts[0]),
        "accounts:invitation": invitation[0],
        "curation:history": reverse("curation:history", args=[faces[given[2]]]),
        "curation:person": reverse("curation:person", args=["ben"]),
    }
    for route, who in PAGES.items():
        address = special.get(route) or reverse(route)
        response = pages[who].goto(address)
        assert response is not None
        assert response.status == 200, f"{who} got {response.status} at {address}"
        trouble += look(pages[who], route)
    trouble += look_at(admin, reverse("curation:dashboard"), "the admin's queue")
    trouble += look_at(admin, reverse("curation:people"), "the admin's people")
    trouble += look_at(admin, special["curation:person"], "somebody to the admin")
    trouble += look_at(
        jo, reverse("curation:history", args=[faces[given[0]]]), "a dispute's history"
    )
    decided = f"{reverse('curation:alike')}?seed={faces[given[2]]}"
    trouble += look_at(jo, decided, "faces like a decided one")
    trouble += look_at(ada, "/curation/people/", "403")

    # Enter on a selected face, or in the comment, decides nothing; the keys that a
    # page names do.
    for route in ("alike", "golds"):
        jo.goto(reverse(f"curation:{route}"))
        face = jo.locator("input[name=face]").first
        face.check()
        face.press("Enter")
        jo.wait_for_timeout(300)
        expect(face).to_be_checked()
    press(jo, "Make them gold")
    expect(jo.locator(".notices")).to_contain_text("1 more gold.")
    jo.goto(reverse("curation:disputes"))
    jo.fill("#comment", "Hard to say.")
    jo.press("#comment", "Enter")
    jo.wait_for_timeout(300)
    expect(jo.locator("#comment")).to_have_value("Hard to say.")
    jo.goto(reverse("curation:history", args=[faces[given[0]]]))
    jo.keyboard.press("2")
    expect(jo.locator(".notices")).to_contain_text("Decided.")
    assert trouble == [], "\n".join(trouble)


def test_what_answers_a_press_is_for_everybody(
    open_page: OpenPage, stack: Stack
) -> None:
    visitor, ada = open_page("/"), open_page("/")
    trouble = []
    photo = give(visitor, encode(astronaut()))
    visitor.goto(f"/photos/{photo}/")
    visitor.get_by_text("Share", exact=True).click()
    visitor.get_by_role("button", name="Make a link").click()
    expect(visitor.locator("#share-link")).to_be_visible()
    trouble += look(visitor, "a new link")
    for choice in ("Keep it until I delete it", "Allow training"):
        visitor.get_by_text("What you allow").click()
        press(visitor, choice)
        expect(visitor.get_by_text("Your choice is in force.")).to_be_visible()
    trouble += look(visitor, "consent given")
    nothing = give(visitor, encode(landscape()))
    trouble += look_at(visitor, f"/photos/{nothing}/", "no face")
    trouble += look_at(visitor, "/photos/mine/", "my photos")

    log_in(ada, "ada")
    for name in ("photo booth", "photo booth"):
        ada.goto("/accounts/api-keys/")
        ada.get_by_label("Name of a new key").fill(name)
        press(ada, "Make a key")
        trouble += look(ada, "a key, new or refused")
    assert trouble == [], "\n".join(trouble)


def test_somebody_invited_joins_and_long_words_fit(open_page: OpenPage) -> None:
    admin, guest = open_page("/"), open_page("/")
    log_in(admin, "max")
    admin.goto(reverse("curation:people"))
    admin.fill("#note", "Q" * 120)
    press(admin, "Make a link")
    trouble = look(admin, "an invitation with a long word")
    invitation = re.search(r"/accounts/invitations/[^\"<\s]+", admin.content())
    assert invitation is not None
    trouble += look_at(admin, reverse("curation:people"), "a long note")

    guest.goto(invitation[0])
    guest.get_by_label("User name").fill("\N{GRINNING FACE}")
    guest.get_by_label("Password").fill(PASSWORD)
    guest.get_by_role("button", name="Make my account").click()
    expect(guest.get_by_role("alert")).to_contain_text("Enter a valid username")
    guest.get_by_label("User name").fill("a" * 150)
    guest.get_by_label("Password").fill(PASSWORD)
    guest.get_by_role("button", name="Make my account").click()
    expect(guest.locator(".notices")).to_contain_text("Welcome, aaa")
    trouble += look(guest, "a long welcome")
    trouble += look_at(admin, reverse("curation:person", args=["a" * 150]))
    admin.get_by_role("button", name="Make adjudicator").click()
    expect(admin.locator(".notices")).to_contain_text("Changed: aaa")
    trouble += look(admin, "a long name changed")
    assert trouble == [], "\n".join(trouble)


def test_pages_of_refusal_are_for_everybody(open_page: OpenPage, stack: Stack) -> None:
    page = open_page("/")
    trouble = look_at(page, "/nothing-here/", "404")

    # Without the script that would refuse the files before they are sent.
    page.route("**/js/upload.js", lambda route: route.abort())
    trouble += refused(page, 415, b"no pixels")
    trouble += refused(page, 429, *[b"no pixels"] * UPLOADS_A_MINUTE)
    photos = stack.home / "media"
    aside = photos.rename(photos.with_name("aside"))
    photos.write_text("No folder: nothing can be stored here.")
    try:
        trouble += refused(page, 503, encode(landscape()))
    finally:
        photos.unlink()
        aside.rename(photos)

    for _ in range(6):
        log_in(page, "nobody", "wrong")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Too many wrong")
    trouble += look(page, "locked out")
    assert trouble == [], "\n".join(trouble)


def refused(page: Page, status: int, *files: bytes) -> list[str]:
    """What is wrong with the page that refuses the files."""
    page.goto("/")
    page.set_input_files(
        "#image",
        [
            {"name": f"{number}.jpg", "mimeType": "image/jpeg", "buffer": data}
            for number, data in enumerate(files)
        ],
    )
    with page.expect_response("**/photos/") as answer:
        page.evaluate("() => document.querySelector('#upload').submit()")
    assert answer.value.status == status
    expect(page.locator("#refusal")).to_be_visible()
    return look(page, str(status))


def path_of(url: str) -> str:
    return re.sub(r"^https?://[^/]+", "", url)
