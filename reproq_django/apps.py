"""The application for INSTALLED_APPS."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class ReproqDjangoConfig(AppConfig):
    """Tables, admin pages and commands of the queue."""

    name = "reproq_django"
    verbose_name = "Background tasks"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from reproq_django.after_migrate import bring_schema_and_schedules
        from reproq_django.execution import install

        post_migrate.connect(bring_schema_and_schedules, sender=self, dispatch_uid="reproq_django.after_migrate")
        install()
