from django.db import migrations, models


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
    ]
