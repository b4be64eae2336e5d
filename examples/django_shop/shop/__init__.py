"""A small shop: an order sends a receipt, a product gets a thumbnail, every night there is a report."""
