"""Commands that make, examine and change what a daemon needs before it runs: configuration and database."""
