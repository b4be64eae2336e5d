"""Settings of the project that tests of reproq_django are; tests/django/conftest.py gives each test its database."""

import importlib.util
import os

from tests.django.databases import postgres_settings

SECRET_KEY = "for tests only"
USE_TZ = True
ALLOWED_HOSTS = ["testserver"]
TIME_ZONE = "UTC"
ROOT_URLCONF = "tests.django.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    *([] if importlib.util.find_spec("django.tasks") else ["django_tasks"]),
    "reproq_django",
    "tests.django.app",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
if "REPROQ_TEST_DJANGO_DSN" in os.environ:  # in processes of their own
    DATABASES = {"default": postgres_settings(os.environ["REPROQ_TEST_DJANGO_DSN"])}
TASKS = {"default": {"BACKEND": "reproq_django.backend.ReproqBackend", "QUEUES": []}}
