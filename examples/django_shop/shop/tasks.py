"""What the shop does in the background."""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.files.base import ContentFile
from django.core.mail import send_mail
from django.db.models import Count, Sum
from django.utils import timezone

from reproq_django.framework import task
from shop.models import Order, Product
from shop.pictures import as_png, read_ppm, shrink


@task(queue_name="mail")
def send_receipt(order: Order) -> None:
    """Tell whoever ordered. A mail may go out twice when a machine dies in between; the mark keeps that from being the rule."""
    if order.receipt_sent_at is not None:
        return
    text = f"Thank you for ordering {order.product}.\nTotal: {order.product.price_cents / 100:.2f}\n"
    send_mail(f"Your order {order.pk}", text, None, [order.email])
    order.receipt_sent_at = timezone.now()
    order.save(update_fields=["receipt_sent_at"])


@task
def make_thumbnail(product: Product) -> str:
    """Make the small picture of a product from the large one, and return its name."""
    with product.picture.open("rb") as file:
        small = shrink(read_ppm(file.read()), 8)
    product.thumbnail.save(f"{product.pk}.png", ContentFile(as_png(small)))
    return str(product.thumbnail.name)


@task(takes_context=True)
def nightly_report(context: Any) -> int:
    """Mail the owner what was ordered within a day, and return how many orders that were."""
    since = timezone.now() - timedelta(days=1)
    rows = list(
        Order.objects.filter(ordered_at__gte=since)
        .values_list("product__name")
        .annotate(count=Count("id"), cents=Sum("product__price_cents"))
        .order_by("product__name")
    )
    lines = []
    for at, (name, count, cents) in enumerate(rows, 1):
        lines.append(f"{count:5} {name:30} {cents / 100:10.2f}")
        context.progress(at, len(rows), name)
    send_mail("Orders of the day", "\n".join(lines) or "nothing was ordered", None, [settings.SHOP_OWNER])
    return sum(count for _, count, _ in rows)
