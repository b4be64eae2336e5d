"""Commands to a running daemon, and the one that starts it; how they find it, talk to it and show what it says."""
