"""Pages of a table that nobody counts: it has as many as a look a little ahead shows."""

from functools import cached_property
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import PAGE_VAR
from django.core.paginator import Paginator

_PAGES_AHEAD = 3


class AtLeast(int):
    """A number of rows of which there may be more."""

    def __str__(self) -> str:
        return f"{int(self)}+"


class UncountedList(admin.ModelAdmin):
    """A list of rows that may be many."""

    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER

    def get_paginator(self, request: Any, queryset: Any, per_page: int, *args: Any, **kwargs: Any) -> "UncountedPaginator":
        page = request.GET.get(PAGE_VAR, "1")
        return UncountedPaginator(queryset, per_page, *args, page=int(page) if page.isdecimal() and len(page) < 10 else 1, **kwargs)


class UncountedPaginator(Paginator):
    """Looks at the page that is shown and a few behind it, in the order of the list."""

    def __init__(self, object_list: Any, per_page: int, *args: Any, page: int = 1, **kwargs: Any) -> None:
        super().__init__(object_list, per_page, *args, **kwargs)
        self._page = max(1, page)

    @cached_property
    def count(self) -> int:
        """How many rows there are up to a few pages behind the one that is shown."""
        before = (self._page - 1) * self.per_page
        most = _PAGES_AHEAD * self.per_page
        seen = len(self.object_list.values_list("pk", flat=True)[before : before + most + 1])
        return AtLeast(before + most) if seen > most else before + seen
