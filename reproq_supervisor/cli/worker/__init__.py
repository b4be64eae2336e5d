"""`worker`: the older worker's command line, which becomes a supervisor with one pool."""
