"""Commands for tasks that need somebody: what failed, what is to go, what hangs; many at once, each on its own."""
