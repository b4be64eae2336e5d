"""Its application, which asks the database before anybody forks."""

from django.apps import AppConfig
from django.db import connection


class SiteConfig(AppConfig):
    """Remembers which server process answered in the nursery."""

    name = "tests.support.django_site"
    label = "django_site"
    boot_backend = 0

    def ready(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            SiteConfig.boot_backend = cursor.fetchone()[0]
