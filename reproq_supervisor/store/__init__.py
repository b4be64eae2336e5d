"""The only room that speaks SQL: statements in `sql/`, the schema and its functions in `migrations/`, typed calls beside them.

Requests in terms of `core.runs` flow in, replies in the same terms flow out. May import `settings` and `core`. Errors:
`errors.StoreUnavailable` means retry later, `errors.StoreError` means a bug or a database that is not ours.
"""
