"""Commands of `manage.py`, each named like its module."""
