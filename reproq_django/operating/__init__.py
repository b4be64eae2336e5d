"""What `manage.py reproq …` does: a project's settings flow in, calls of `reproq_supervisor` flow out.

Each subcommand says its flags and is run; what it does is done by the rooms of the product, on the database that the project's settings
name. May import everything of `reproq_django` and `reproq_supervisor`.
"""
