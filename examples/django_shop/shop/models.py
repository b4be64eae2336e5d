"""What is sold, and what was ordered."""

from django.db import models


class Product(models.Model):
    """Something to buy. `picture` and `thumbnail` are files in the media folder; a task makes the second from the first."""

    name = models.CharField(max_length=100)
    price_cents = models.PositiveIntegerField()
    picture = models.FileField(upload_to="pictures")
    thumbnail = models.FileField(upload_to="thumbnails", blank=True)

    def __str__(self) -> str:
        return str(self.name)


class Order(models.Model):
    """Somebody wants something. `receipt` is the id of the task that sends the receipt."""

    product = models.ForeignKey(Product, models.PROTECT)
    email = models.EmailField()
    ordered_at = models.DateTimeField(auto_now_add=True)
    receipt = models.CharField(max_length=40, blank=True)
    receipt_sent_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.product} for {self.email}"
