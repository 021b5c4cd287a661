from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("training", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="trainingrun",
            name="put_off_since",
            field=models.DateTimeField(null=True),
        ),
    ]
