"""Commands about single task runs: enqueue them, look at them, end them."""
