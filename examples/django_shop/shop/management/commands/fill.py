"""`manage.py fill`: something to sell."""

from typing import Any

from django.core.files.base import ContentFile
from django.core.management.base import BaseCommand

from shop.models import Product
from shop.pictures import draw
from shop.tasks import make_thumbnail

PRODUCTS = {"Red ball": (220, 1250), "Blue ball": (20, 1100), "Grey ball": (128, 900)}


class Command(BaseCommand):
    """Adds products where there are none."""

    help = "Put three products into the shop."

    def handle(self, *args: Any, **options: Any) -> None:
        if Product.objects.exists():
            return
        for name, (hue, cents) in PRODUCTS.items():
            product = Product(name=name, price_cents=cents)
            product.picture.save(f"{name}.ppm", ContentFile(draw(hue)), save=False)
            product.save()
            make_thumbnail.enqueue(product)
        self.stdout.write(f"{len(PRODUCTS)} products added; their thumbnails are being made")
