"""A Django project for tests: asks its database while it is imported, and has tasks that misuse their connections."""
