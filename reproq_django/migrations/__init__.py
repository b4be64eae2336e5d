"""Django's side of the schema: one migration, whose steps are those of `reproq-supervisor migrate`."""
