"""The parent: one loop, restarts, reload, the control socket. No database, no user code.

May import process, telemetry, settings, core.
"""
