"""Tasks for the demo, the tests and the documentation: one per behaviour."""
