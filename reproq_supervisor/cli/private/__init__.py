"""A daemon of one command's own: its folder, its start, and an end that leaves nothing behind."""
