"""YAML, environment and flags flow in; frozen settings, or every complaint at once, flow out. May import core."""
