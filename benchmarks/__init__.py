"""Measurements that anyone can run: this product beside the raw SQL on the same schema, in the same run, as ratios."""
