"""Its tasks."""

import os

from reproq_django.framework import task


@task
def process_and_settings() -> tuple[int, str | None]:
    return os.getpid(), os.environ.get("DJANGO_SETTINGS_MODULE")
