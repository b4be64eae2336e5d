"""Nouns, events, transition tables and decisions. Pure: no I/O, no clock, no randomness; may import only the standard library's pure parts."""
