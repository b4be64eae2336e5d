"""Addresses of the package; dashboards expect them below `/reproq/`: `path("reproq/", include("reproq_django.urls"))`."""

from django.urls import path

from reproq_django.views import numbers, pairing, proxies

urlpatterns = [
    path("stats/", numbers.stats, name="stats"),
    path("stress-test/", numbers.stress_test, name="stress-test"),
    path("tui/pair/", pairing.pair, name="reproq-tui-pair"),
    path("tui/pair/<str:code>/", pairing.pair_status, name="reproq-tui-pair-status"),
    path("tui/config/", pairing.config, name="reproq-tui-config"),
    path("tui/authorize/", pairing.authorize, name="reproq-tui-authorize"),
    path("tui/revoke/", pairing.revoke, name="reproq-tui-revoke"),
    path("tui/login/", pairing.Login.as_view(), name="reproq-tui-login"),
    path("tui/metrics/", proxies.metrics, name="reproq-tui-metrics"),
    path("tui/healthz/", proxies.healthz, name="reproq-tui-healthz"),
    path("tui/events/", proxies.events, name="reproq-tui-events"),
]
