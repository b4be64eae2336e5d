"""The contract's executor: one task in a fresh interpreter, with Django set up (`isolation: exec`, or an older worker's `executor_module`).

    python -m reproq_django.executor --result-id 7 --attempt 1 --payload-stdin < spec.json

The settings module is `--settings`, else what the spec says, else DJANGO_SETTINGS_MODULE. All else is `reproq_supervisor.executor.program`.
"""

import sys

from reproq_supervisor.executor.program import main

if __name__ == "__main__":
    sys.exit(main())
