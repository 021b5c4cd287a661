from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("photos", "0002_batch_idempotency_hash")]

    operations = [
        migrations.AddField(
            model_name="batch",
            name="is_incomplete",
            field=models.BooleanField(db_default=False, default=False),
        ),
    ]
