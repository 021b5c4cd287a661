from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("photos", "0003_batch_is_incomplete")]

    operations = [
        migrations.AddField(
            model_name="photo",
            name="put_off_since",
            field=models.DateTimeField(null=True),
        ),
    ]
