"""The parts of a migration: what the schema should be, and steps that bring any known layout to it while producers go on inserting.

A step looks at the database to know whether it is done, says which lock it takes, and can be interrupted anywhere and taken again. The
order of all steps is in `order.py`; `store/migrate.py` takes them. Nothing here runs by itself.
"""
