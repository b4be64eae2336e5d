"""Settings of the shop.

Its database is the one that DATABASE_URL names, else the private one that its worker runs (`database: embedded` in supervisor.yaml), whose
address is in the record that the worker keeps.
"""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict

BASE_DIR = Path(__file__).resolve().parent.parent


def _database() -> dict[str, Any]:
    url = os.environ.get("DATABASE_URL")
    record = BASE_DIR / ".reproq" / "run" / "daemon.json"
    if not url and record.is_file():
        url = json.loads(record.read_text())["dsn"]
    parts = conninfo_to_dict(url or "dbname=shop")
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    return {"ENGINE": "django.db.backends.postgresql", **{name: str(parts.get(part) or "") for name, part in names.items()}}


SECRET_KEY = os.environ.get("SHOP_SECRET_KEY", "only for trying it out on one's own machine")
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
USE_TZ = True
ROOT_URLCONF = "site_config.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": {**_database(), "CONN_MAX_AGE": 60}}
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    # Before Django 6.0 the framework is a package of its own.
    *([] if importlib.util.find_spec("django.tasks") else ["django_tasks"]),
    "reproq_django",
    "shop",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
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
STATIC_URL = "static/"
MEDIA_URL = "media/"
MEDIA_ROOT = BASE_DIR / "media"

# The tasks of the shop: two queues, and one pool for each in supervisor.yaml.
TASKS = {"default": {"BACKEND": "reproq_django.backend.ReproqBackend", "QUEUES": ["default", "mail"]}}

# Receipts and reports become files that one can look at.
EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
EMAIL_FILE_PATH = BASE_DIR / "mail"
DEFAULT_FROM_EMAIL = "shop@example.org"
SHOP_OWNER = "owner@example.org"
