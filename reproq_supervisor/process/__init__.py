"""The only room that touches pids, signals, descriptors and clocks. May import settings and core."""
