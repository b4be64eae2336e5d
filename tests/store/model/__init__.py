"""The rules of the queue in plain Python, and the machine that does the same to them and to a store: see test_model.py."""
