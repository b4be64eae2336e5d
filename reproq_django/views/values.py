"""Values that are a setting of the project, or else a variable of the environment."""

import os

from django.conf import settings

_ON = ("1", "true", "yes", "on")


def value_of(name: str) -> str:
    """Return the setting *name*, else the variable, else nothing."""
    found = getattr(settings, name, None)
    return str(os.environ.get(name, "") if found is None else found).strip()


def is_on(name: str) -> bool:
    """Answer whether it says yes."""
    return value_of(name).lower() in _ON
