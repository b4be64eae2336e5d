"""Single-runner duties: reclaim, release of dead workers' leases, wake what is due.

May import store, process, telemetry, settings, core.
"""
