"""Its settings. The database is the test's: DJANGO_SITE_DSN."""

import os

from psycopg.conninfo import conninfo_to_dict

_DSN = conninfo_to_dict(os.environ["DJANGO_SITE_DSN"])
_AGE = os.environ.get("DJANGO_SITE_CONN_MAX_AGE", "0")
_POOL = bool(os.environ.get("DJANGO_SITE_POOL"))

SECRET_KEY = "of tests"
DEBUG = bool(os.environ.get("DJANGO_SITE_DEBUG"))
USE_TZ = True
INSTALLED_APPS = ["tests.support.django_site.apps.SiteConfig"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _DSN["dbname"],
        "USER": _DSN.get("user", ""),
        "PASSWORD": _DSN.get("password", ""),
        "HOST": _DSN.get("host", ""),
        "PORT": _DSN.get("port", ""),
        "CONN_MAX_AGE": None if _AGE == "None" else int(_AGE),
        "OPTIONS": {"application_name": "django_site", **({"pool": True} if _POOL else {})},
    }
}
