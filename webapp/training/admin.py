from django.contrib import admin
from django_celery_beat import models

# When what runs is the code's own, and a run's on the page of the schedule: an hour
# that the page does not know, or an erasure that was switched off, is nothing that a
# form should offer.
for model in (
    models.PeriodicTask,
    models.CrontabSchedule,
    models.IntervalSchedule,
    models.SolarSchedule,
    models.ClockedSchedule,
):
    admin.site.unregister(model)
