"""`torture`: thousands of tasks that tell us past the queue what they did, and a proof that it agrees with the database.

What was planned (`workload`), what the tasks said (`recorder`), what the database says and whom we killed (`chaos`) go into `proof`, which
is pure; the rest is waiting and telling.
"""
