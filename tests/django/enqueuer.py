"""A producer of its own: waits for the starting signal, and enqueues the same task again and again; prints the ids that it was given.

python -m tests.django.enqueuer ROUNDS
"""

import json
import sys

import django

_STARTING_SIGNAL = 16  # an advisory lock that the test holds until everybody waits


def main() -> None:
    django.setup()
    from django.db import connection, transaction

    from tests.django.app import tasks

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock_shared(%s)", [_STARTING_SIGNAL])
    ids = []
    for number in range(int(sys.argv[1])):
        with transaction.atomic():
            ids.append(tasks.add.enqueue(number, b=7).id)
            # The transaction goes on, whoever was first.
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
    sys.stdout.write(json.dumps(ids))


if __name__ == "__main__":
    main()
