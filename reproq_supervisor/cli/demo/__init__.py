"""The demo: the real daemon on real input, and a report that checks every result against a plain loop.

It uses the product as a program of a user would: the command `run`, the store's enqueue and its reading, a signal to stop.
"""
