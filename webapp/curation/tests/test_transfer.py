from __future__ import annotations

import csv
import io
import json
import uuid
import zipfile
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from webapp.accounts.models import Role, User
from webapp.core.errors import DomainError
from webapp.core.tests.queries import query_limit
from webapp.curation.models import Consensus, Correction, GoldFace, Verdict
from webapp.curation.services import transfer
from webapp.curation.services.claims import claim_faces
from webapp.curation.services.flags import submit_flag
from webapp.curation.services.quality import add_gold
from webapp.curation.services.transfer import (
    COLUMNS,
    MANIFEST_NAME,
    export_csv,
    export_jsonl,
    export_rows,
    export_zip,
    import_rows,
    read_csv,
    read_folder,
    read_jsonl,
)
from webapp.curation.services.votes import (
    adjudicate,
    adjudicate_many,
    submit_correction,
    undo,
)
from webapp.curation.tests.factories import (
    WAYS_OUT_OF_REACH,
    PersonFactory,
    QueuedFaceFactory,
)
from webapp.photos.models import Face

pytestmark = pytest.mark.django_db


@pytest.fixture
def history() -> list[dict[str, object]]:
    """Votes, a flag, an undo, a batch, and awkward names, keys and comments."""
    faces = QueuedFaceFactory.create_batch(3)
    person = PersonFactory(username="@ada")
    for comment in ("=1+1", "'quoted'", 'a "b", ü\nnew line'):
        (claim,) = claim_faces(person=person)
        submit_correction(
            person=person,
            claim_id=claim.pk,
            verdict="sad",
            duration_ms=12,
            key="=2",
            comment=comment,
        )
    claim = undo(person=person)
    submit_correction(person=person, claim_id=claim.pk, verdict="unclear")
    submit_flag(face=faces[0], visitor_key="v" * 64, verdict="happy")
    adjudicate_many(
        person=PersonFactory(role=Role.ADJUDICATOR),
        face_ids=[faces[0].pk, faces[1].pk],
        verdict="neutral",
    )
    return list(export_rows())


def unpacked(place: Path) -> Path:
    """The folder of an exported archive."""
    archive = io.BytesIO()
    export_zip(target=archive)
    zipfile.ZipFile(archive).extractall(place)
    return place / "mien"


def forget() -> list[dict[str, object]]:
    consensus = list(Consensus.objects.order_by("face_id").values("verdict", "tally"))
    Correction.objects.all().delete()
    User.objects.filter(claims=None).delete()
    return consensus


def test_decision_that_another_one_stands_against_is_said() -> None:
    face = QueuedFaceFactory()
    adjudicate(
        person=PersonFactory(role=Role.ADJUDICATOR), face_id=face.pk, verdict="sad"
    )
    (row,) = list(export_rows())
    other = {**row, "id": str(uuid.uuid4()), "author": "somebody-else"}

    with pytest.raises(DomainError, match="another adjudicator has decided it"):
        import_rows(rows=[other])


def test_gold_face_measures_by_the_decision_that_a_file_brings() -> None:
    decided, voted = QueuedFaceFactory.create_batch(2)
    adjudicate(
        person=PersonFactory(role=Role.ADJUDICATOR), face_id=decided.pk, verdict="sad"
    )
    (row,) = list(export_rows())
    Correction.objects.all().delete()
    for face in (decided, voted):
        add_gold(face_id=face.pk, verdict=Verdict.HAPPY, chosen_by=None)
    other = {"id": str(uuid.uuid4()), "face_id": str(voted.pk), "source": "annotator"}

    import_rows(rows=[row, {**row, **other}])

    golds = dict(GoldFace.objects.values_list("face", "verdict"))
    assert golds == {decided.pk: "sad", voted.pk: "happy"}


def test_face_whose_label_a_file_brings_is_before_its_person_no_more() -> None:
    QueuedFaceFactory.create_batch(2)
    person = PersonFactory()
    first, second = claim_faces(person=person, count=2)
    submit_correction(person=person, claim_id=first.pk, verdict="sad")
    (row,) = list(export_rows())
    brought = {**row, "id": str(uuid.uuid4()), "face_id": str(second.face_id)}

    import_rows(rows=[brought])

    assert claim_faces(person=person) == []


@pytest.mark.parametrize("kind", ["csv", "jsonl", "folder"])
def test_what_goes_out_comes_in_again_to_the_last_field(
    history: list[dict[str, object]], kind: str, tmp_path: Path
) -> None:
    if kind == "csv":
        text = "".join(export_csv())
        rows = list(read_csv(text.splitlines(keepends=True)))
    elif kind == "jsonl":
        rows = list(read_jsonl(list(export_jsonl())))
    else:
        rows = list(read_folder(unpacked(tmp_path)))
    consensus = forget()

    report = import_rows(rows=rows)

    assert (report.new, report.known, report.missing_faces) == (len(history), 0, 0)
    assert list(export_rows()) == history
    assert consensus == list(
        Consensus.objects.order_by("face_id").values("verdict", "tally")
    )
    assert import_rows(rows=rows).known == len(history)


def test_formulas_do_not_reach_a_spreadsheet(history: list[object]) -> None:
    text = "".join(export_csv())
    cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]

    assert {"'=1+1", "'@ada", "'=2"} <= set(cells)
    assert not [cell for cell in cells if cell[:1] in tuple("=+-@\t\r\n")]


def test_pictures_lie_in_one_folder_a_label(
    history: list[object], tmp_path: Path
) -> None:
    pictures = list(unpacked(tmp_path).rglob("*.png"))

    assert len(pictures) == 3
    assert {path.parent.name for path in pictures} == {"neutral", "open"}


def test_more_faces_than_a_query_takes_names_leave(
    history: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transfer, "_BATCH", 2)

    with query_limit(2):
        assert len(list(unpacked(tmp_path).rglob("*.png"))) == 3


@pytest.mark.parametrize("put_out_of_reach", WAYS_OUT_OF_REACH)
def test_faces_without_consent_do_not_leave(
    put_out_of_reach: Callable[[Face], None],
) -> None:
    face = QueuedFaceFactory()
    submit_flag(face=face, visitor_key="v" * 64, verdict="happy")
    put_out_of_reach(face)

    assert list(export_rows()) == []


def test_people_who_are_unknown_come_as_closed_accounts(
    history: list[dict[str, object]],
) -> None:
    rows = [{**row, "author": row["author"] and "somebody"} for row in history[:1]]
    Correction.objects.all().delete()

    import_rows(rows=rows)

    person = User.objects.get(username="somebody")
    assert not person.is_active
    assert not person.has_usable_password()


def test_faces_of_another_site_are_counted_and_left_out(
    history: list[dict[str, object]],
) -> None:
    lines = [json.dumps(row) for row in history]
    for face in {row["face_id"] for row in history}:
        Consensus.objects.get(face_id=face).face.photo.delete()

    assert import_rows(rows=read_jsonl(lines)).missing_faces == len(history)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"verdict": "angry"}, "Row 1"),
        ({"id": "1"}, "Row 1"),
        ({"created_at": "yesterday"}, "created_at: Datetime has wrong format"),
        ({"created_at": "9999-12-31T23:59:59-23:59"}, "created_at: .*out of range"),
        ({"retracted_at": "yesterday"}, "retracted_at: Datetime has wrong format"),
        ({"duration_ms": "long"}, "Row 1"),
        ({"duration_ms": -1}, "duration_ms: .*greater than or equal to 0"),
        ({"duration_ms": 1e400}, "Row 1"),
        ({"duration_ms": 10**30}, "Row 1"),
        ({"author": ["ada"]}, "author: Not a valid string"),
        ({"author": None}, "it has no author"),
        ({"visitor_key": "v" * 64}, "no other has one"),
        ({"comment": "x" * 501}, "comment: .*no more than 500"),
        ({"comment": "\ud800"}, "comment: Surrogate characters"),
        ({"comment": "a\0b"}, "comment: Null characters"),
        ({"author": "no spaces allowed"}, "will not do"),
    ],
)
def test_wrong_row_is_named_and_nothing_comes_in(
    history: list[dict[str, object]], change: dict[str, object], words: str
) -> None:
    Correction.objects.all().delete()

    with pytest.raises(DomainError, match=words):
        import_rows(rows=[{**history[0], **change}, *history[1:]])

    assert not Correction.objects.exists()


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DomainError, match="Row 1 cannot be used: it is no JSON"):
        list(read_jsonl(["{"]))
    with pytest.raises(DomainError, match="no JSON object"):
        list(read_jsonl(["[1]"]))
    with pytest.raises(DomainError, match="Row 2 cannot be used: it is no JSON"):
        list(read_jsonl(["{}", "[" * 100_000]))
    with pytest.raises(DomainError, match="Row 1 cannot be used: it is no JSON"):
        list(read_jsonl(["9" * 5000]))
    with pytest.raises(
        DomainError, match="After line 1 the file cannot be read: field"
    ):
        list(read_csv([",".join(COLUMNS) + "\n", "x" * 200_000 + "\n"]))
    with pytest.raises(DomainError, match="no column"):
        list(read_csv(["a,b\n", "1,2\n"]))
    with pytest.raises(DomainError, match="cannot be read"):
        list(read_folder(tmp_path))
    (tmp_path / MANIFEST_NAME).write_text('{"corrections": null}')
    with pytest.raises(DomainError, match="corrections are no list"):
        list(read_folder(tmp_path))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "folder"])
def test_command_brings_labels_back(
    history: list[dict[str, object]], kind: str, tmp_path: Path
) -> None:
    path = tmp_path / f"labels.{kind}"
    if kind == "folder":
        path = unpacked(tmp_path)
    else:
        lines = export_csv() if kind == "csv" else export_jsonl()
        path.write_text("".join(lines), encoding="utf-8", newline="")
    forget()
    out = StringIO()

    call_command("import_labels", path, stdout=out)

    assert out.getvalue().startswith(f"{len(history)} new, 0 known")
    assert list(export_rows()) == history
    if path.is_file():
        # As a spreadsheet saves it.
        saved = path.with_suffix(path.suffix.upper())
        path = path.rename(saved)
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        call_command("import_labels", path, stdout=out)
        path.write_bytes(b"\xff\xfe")
        with pytest.raises(CommandError, match="is no UTF-8: save it as that"):
            call_command("import_labels", path)
    with pytest.raises(CommandError, match=r"no \.csv"):
        call_command("import_labels", tmp_path / "labels.txt")
    with pytest.raises(CommandError, match="No such file"):
        call_command("import_labels", tmp_path / "none.csv")
