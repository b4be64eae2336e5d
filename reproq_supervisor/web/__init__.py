"""HTTP and dashboard. May import store, process, telemetry, settings, core."""
