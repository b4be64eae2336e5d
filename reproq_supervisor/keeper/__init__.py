"""Single-runner duties: reclaim, release of dead workers' leases, wake what is due, fire schedules.

May import store, process, telemetry, settings, core.
"""
