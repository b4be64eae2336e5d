"""The project with its queue: what `reproq_django` needs beside its other settings."""

import importlib.util

from tests.support.django_site import settings as plain

globals().update({name: value for name, value in vars(plain).items() if name.isupper()})

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    *([] if importlib.util.find_spec("django.tasks") else ["django_tasks"]),
    "reproq_django",
    *plain.INSTALLED_APPS,
]
TASKS = {"default": {"BACKEND": "reproq_django.backend.ReproqBackend", "QUEUES": []}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
