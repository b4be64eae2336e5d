"""Settings of the executors that run the tasks of Django's own tests: what they log goes to a file, for the tests to hear of it."""

import os

from tests.django.settings import *  # noqa: F403

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"file": {"class": "tests.django.own.hearing.Appending", "filename": os.environ["REPROQ_TEST_LOG_FILE"]}},
    "loggers": {"django.tasks": {"level": "DEBUG", "handlers": ["file"]}},
}
