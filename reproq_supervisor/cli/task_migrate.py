"""`migrate`: the database's schema, step by step."""

import click

from reproq_supervisor.cli.database import open_database
from reproq_supervisor.cli.options import Options, common_options, example


@click.command(epilog=example("reproq-supervisor migrate --plan", "reproq-supervisor migrate --dsn postgresql://app@db/app"))
@click.option("--plan", "only_plan", is_flag=True, help="Show the steps and the locks they take; change nothing.")
@common_options
def migrate(options: Options, only_plan: bool) -> None:
    """Bring the database to the schema of this version.

    Every step is a transaction of its own; interrupted anywhere, the next call goes on from there. Two calls at once wait for each other.
    """
    from reproq_supervisor.store import migrate as migration

    output = options.output
    with open_database(options) as connection:
        if only_plan:
            steps = migration.plan(connection)
        else:
            steps = migration.migrate(connection, None if output.as_json else lambda step: output.line(f"{step.version:03} {step.name} …"))
    if output.as_json:
        listed = [{"version": step.version, "name": step.name, "locks": step.locks} for step in steps]
        output.show_json({"ok": True, "applied": not only_plan, "steps": listed})
    elif only_plan:
        output.table(["step", "name", "locks"], [(f"{step.version:03}", step.name, step.locks) for step in steps], empty="up to date")
    else:
        output.line(f"{len(steps)} steps taken; up to date" if steps else "up to date")
