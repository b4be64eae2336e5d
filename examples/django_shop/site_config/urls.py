"""Addresses of the shop."""

from django.conf import settings
from django.conf.urls.static import static
from django.contrib import admin
from django.urls import include, path
from shop import views

urlpatterns = [
    path("", views.home, name="home"),
    path("admin/", admin.site.urls),
    path("reproq/", include("reproq_django.urls")),
    *static(settings.MEDIA_URL, document_root=settings.MEDIA_ROOT),
]
