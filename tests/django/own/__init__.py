"""The tests that Django ships for its tasks framework, against this backend: `make test-django-own` fetches and runs them."""
