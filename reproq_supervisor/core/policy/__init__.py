"""Decisions as pure functions of state, observation and time: restart, claim plan, retry, hand-out, reconcile."""
