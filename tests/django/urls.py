"""The pages of the tests' project."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("admin/", admin.site.urls), path("reproq/", include("reproq_django.urls"))]
