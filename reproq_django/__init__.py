"""The Django Tasks backend of reproq-supervisor: tasks are enqueued and looked after by Django, and run by a supervisor.

Thin on purpose: what is enqueued goes through the same calls as from `reproq_supervisor.client`, and Django's migrations run the same steps
as `reproq-supervisor migrate`. May import `reproq_supervisor`, which never imports this. Loads no models by itself.
"""
