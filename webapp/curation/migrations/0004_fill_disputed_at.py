from typing import Any

from django.db import migrations
from django.db.models import Max


def fill(apps: Any, schema_editor: Any) -> None:
    """What was said, taken back or passed over last has made it a dispute, or came
    when it was one."""
    rows = apps.get_model("curation", "Consensus").objects.filter(
        state="disputed", disputed_at=None
    )
    for pk, face_id, created_at in rows.values_list("pk", "face_id", "created_at"):
        said = apps.get_model("curation", "Correction").objects.filter(
            face_id=face_id, source__in=["annotator", "adjudicator"]
        )
        claims = apps.get_model("curation", "Claim").objects.filter(face_id=face_id)
        moments = [
            *said.aggregate(Max("created_at"), Max("retracted_at")).values(),
            *claims.aggregate(Max("ended_at")).values(),
        ]
        # By its state, too: the old release decides disputes meanwhile.
        rows.filter(pk=pk).update(
            disputed_at=max(filter(None, moments), default=created_at)
        )


class Migration(migrations.Migration):

    # Row by row, beside a release that serves: no lock outlives one of them.
    atomic = False

    dependencies = [
        ('curation', '0003_consensus_disputed_at'),
    ]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
