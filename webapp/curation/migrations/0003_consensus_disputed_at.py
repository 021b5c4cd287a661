from typing import Any

from django.db import migrations, models
from django.db.models import Max


def fill(apps: Any, schema_editor: Any) -> None:
    """What was said, taken back or passed over last has made it a dispute, or came
    when it was one."""
    for row in apps.get_model("curation", "Consensus").objects.filter(state="disputed"):
        said = apps.get_model("curation", "Correction").objects.filter(
            face_id=row.face_id, source__in=["annotator", "adjudicator"]
        )
        claims = apps.get_model("curation", "Claim").objects.filter(face_id=row.face_id)
        moments = [
            *said.aggregate(Max("created_at"), Max("retracted_at")).values(),
            *claims.aggregate(Max("ended_at")).values(),
        ]
        row.disputed_at = max(filter(None, moments), default=row.created_at)
        row.save(update_fields=["disputed_at"])


class Migration(migrations.Migration):

    dependencies = [
        ('curation', '0002_import_attempts'),
    ]

    operations = [
        migrations.AddField(
            model_name='consensus',
            name='disputed_at',
            field=models.DateTimeField(null=True),
        ),
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]
