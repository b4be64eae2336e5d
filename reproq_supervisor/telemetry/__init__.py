"""The only room that words log lines and counts metrics: events flow in, lines flow out.

May import settings and core.
"""
