"""The background side of a Python application, on PostgreSQL alone."""

__version__ = "0.1.0"
