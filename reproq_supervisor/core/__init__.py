"""Nouns, events, transition tables and decisions.

Pure: no I/O, no clock, no randomness; may import only the pure parts of the standard library.
"""
