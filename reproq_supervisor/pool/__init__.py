"""The shard: claims, renews, completes and hands out work. Never runs user code.

May import store, process, telemetry, settings, core.
"""
