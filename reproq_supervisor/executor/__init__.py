"""Nursery and executor: import the application, fork, run task code.

No database. May import process, telemetry, settings, core.
"""
