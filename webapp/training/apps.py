from django.apps import AppConfig


class TrainingConfig(AppConfig):
    name = "webapp.training"
    label = "training"

    def ready(self) -> None:
        """Receipts end with what training made of a face, and the queue counts labels
        from the last run on."""
        from webapp.curation import receipts, selectors
        from webapp.training.selectors import trained_step
        from webapp.training.services.triggers import last_run_at

        receipts.trained_step = lambda flag: trained_step(flag=flag)
        selectors.last_run_at = last_run_at
