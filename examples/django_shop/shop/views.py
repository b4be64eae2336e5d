"""The one page of the shop."""

from django.db import transaction
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from shop.models import Order, Product
from shop.tasks import send_receipt


class OrderForm(ModelForm):
    """What, and for whom."""

    class Meta:
        model = Order
        fields = ("product", "email")


def home(request: HttpRequest) -> HttpResponse:
    """Show what there is and what was ordered; take an order."""
    form = OrderForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        # Order and task are committed together, or not at all: nobody gets a receipt for an order that failed.
        with transaction.atomic():
            order = form.save()
            order.receipt = send_receipt.enqueue(order).id
            order.save(update_fields=["receipt"])
        return redirect("home")
    orders = Order.objects.select_related("product").order_by("-pk")[:20]
    return render(request, "shop/home.html", {"form": form, "products": Product.objects.order_by("name"), "orders": orders})
