from typing import Any

from django.db import migrations

import webapp.accounts.models


def name_them(apps: Any, schema_editor: Any) -> None:
    """``createsuperuser`` left them with the role of an annotator."""
    User = apps.get_model("accounts", "User")
    User._base_manager.filter(is_superuser=True).update(role="admin")


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0005_api_key_may_train'),
    ]

    operations = [
        migrations.AlterModelManagers(
            name='user',
            managers=[
                ('objects', webapp.accounts.models.PersonManager()),
            ],
        ),
        migrations.RunPython(name_them, migrations.RunPython.noop),
    ]
