"""The queue in numbers, and tasks to try it with."""

from typing import Any

from django.contrib.admin.views.decorators import staff_member_required
from django.core.serializers.json import DjangoJSONEncoder
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_POST

from reproq_django.framework import task_backends
from reproq_django.stats import stats_of
from reproq_django.views.auth import for_readers

MOST_TASKS = 10_000


@never_cache
@for_readers
def stats(request: HttpRequest) -> HttpResponseBase:
    """Answer with the state of the queue."""
    return JsonResponse(stats_of(), encoder=DjangoJSONEncoder)


@require_POST
@csrf_protect
@staff_member_required
def stress_test(request: HttpRequest) -> HttpResponseBase:
    """Enqueue tasks that do nothing."""
    from reproq_django.tasks import debug_noop_task

    given = request.POST.get("count", "100")
    count = int(given) if given.isascii() and given.isdecimal() and len(given) < 9 else 0
    if not 1 <= count <= MOST_TASKS:
        return JsonResponse({"ok": False, "error": f"count: expected 1 to {MOST_TASKS}"}, status=400)
    backend: Any = task_backends[debug_noop_task.backend]
    backend.bulk_enqueue([(debug_noop_task, (number,), {}) for number in range(count)])
    return JsonResponse({"ok": True, "enqueued": count})
