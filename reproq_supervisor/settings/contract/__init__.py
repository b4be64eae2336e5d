"""The older worker's command line: its flags, variables and reproq.yaml or reproq.toml flow in, settings of one pool flow out.

file.py ─┐
environ ─┼─► values.py (who wins, every wrong value at once) ─► translate.py (ours for theirs, and advice) ─► load.py (validated)
flags ───┘
"""
