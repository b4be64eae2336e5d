"""The application."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """Products and orders."""

    name = "shop"
