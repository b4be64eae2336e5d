"""Contenders of one comparison: each enqueues the same tasks and works them off in its own way; a module each, with one interface."""
