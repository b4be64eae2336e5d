"""`python -m reproq_supervisor`: the command line, for where its script cannot be (long paths, no PATH)."""

from reproq_supervisor.cli.main import main

main()
