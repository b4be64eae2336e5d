"""What the supervisor decides, without doing any of it: facts flow in, commands flow out.

    facts (a child said, exited; a signal; a request; time) ──► step ──► commands (spawn, send, signal, reply, exit)

*Wanted* (`plan`, `wanted`) is kept apart from *actual* (`roster` of processes, each with its own state table in `states`).
After every fact the two are reconciled, so a lost race is mended by the next step rather than by a special case.
The same code is driven by the real loop (`supervisor/`) and by the simulated world of the tests.
"""
