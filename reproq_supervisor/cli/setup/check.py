"""`check`: is the configuration valid?"""

import click

from reproq_supervisor.cli.options import Options, common_options, example


@click.command(epilog=example("reproq-supervisor check -c supervisor.yaml"))
@common_options
def check(options: Options) -> None:
    """Validate the configuration; change nothing.

    Every problem is told in one go and the exit code is 78. Nothing of the application is imported.
    """
    from reproq_supervisor.process.privileges import find_lacking
    from reproq_supervisor.settings.checks import advise
    from reproq_supervisor.settings.document import dotted

    source = options.require_config()
    settings = options.load().settings
    advice = [f"{path}: {text}" for path, text in advise(settings)]
    # Whoever checks a file need not be the one who starts the daemon.
    advice += [f"{dotted(lack.path)}: {lack.message} ({lack.hint})" for lack in find_lacking(settings)]
    queues = sorted({queue for pool in settings.pools.values() for queue in pool.queues})
    if options.output.as_json:
        options.output.show_json({"ok": True, "source": source, "pools": list(settings.pools), "queues": queues, "advice": advice})
        return
    options.output.line(f"{source}: valid: pools {', '.join(settings.pools)}; queues {', '.join(queues)}")
    for text in advice:
        options.output.line(f"{source}: {text}", style="yellow")
