"""Task code that is shipped with the product: demonstrations and playthings."""
