"""The contract's own signals, sent beside those of Django's framework.

* `task_enqueued`: from the backend's class, with `task_result` and `spec` (a dict), in the transaction of whoever enqueues.
* `task_started`: from "reproq_django.executor", with `task_context`.
* `task_finished`: from "reproq_django.executor", with `task_context`, `ok` and `error`.
"""

from django.dispatch import Signal

task_enqueued = Signal()
task_started = Signal()
task_finished = Signal()
