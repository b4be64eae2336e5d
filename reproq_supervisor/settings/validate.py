"""From layers of data to settings, or to every problem at once."""

from typing import Any

from pydantic import ValidationError

from reproq_supervisor.settings.checks import check_together
from reproq_supervisor.settings.complaints import complain, place_problem
from reproq_supervisor.settings.document import Path
from reproq_supervisor.settings.layers import Layers
from reproq_supervisor.settings.model import Settings
from reproq_supervisor.settings.problems import ConfigError, Problem

_MAX_ROUNDS = 5
_MAX_PROBLEMS = 200


def validate(layers: Layers) -> Settings:
    """Validate value by value, then, with what is wrong left out, the rules that join values.

    Leaving out is what lets both kinds of problem be told in one go. A rule that looked at a value which is wrong by itself says
    nothing, since it saw a default instead.

    Raises:
      ConfigError: with every problem, in the order of the file.
    """
    # What a flag lies over needs no mending: `--dsn` makes up for an unset ${DATABASE_URL}.
    in_force = [(path, problem) for path, problem in layers.document.problems if not layers.is_covered(path)]
    problems = [problem for _, problem in in_force]
    broken = {path for path, _ in in_force}
    data = layers.merge()
    settings: Settings | None = None
    for attempt in range(_MAX_ROUNDS):
        try:
            settings = Settings.model_validate(data)
            break
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                path, problem = complain(detail, layers)
                if attempt == 0:  # later complaints are about what the leaving out did
                    problems.append(problem)
                broken.add(path)
            data = _without(data, {_to_key(path) for path in broken})
    problems += [
        place_problem(finding.path, finding.message, finding.hint, layers, near=finding.uses)
        for finding in (check_together(settings) if settings else ())
        if not any(_overlap(used, wrong) for used in finding.uses for wrong in broken)
    ]
    if problems or settings is None:
        in_order = sorted(dict.fromkeys(problems), key=lambda problem: (problem.line or 0, problem.column or 0))
        if more := in_order[_MAX_PROBLEMS:]:
            in_order[_MAX_PROBLEMS:] = [Problem("", f"and {len(more)} more problems like these")]
        raise ConfigError(layers.source, tuple(in_order))
    return settings


def _without(data: dict[str, Any], broken: set[Path], around: Path = ()) -> dict[str, Any]:
    """Return *data* without the keys at the paths in *broken*, which are whole ones (`_to_key`)."""
    if () in broken:
        return {}
    kept = ((key, value, (*around, key)) for key, value in data.items() if (*around, key) not in broken)
    return {key: _without(value, broken, path) if isinstance(value, dict) else value for key, value, path in kept}


def _to_key(path: Path) -> Path:
    """Return the path of the list that an item is in, or *path* itself: a list with a wrong item goes as a whole."""
    return next((path[:length] for length, part in enumerate(path) if isinstance(part, int)), path)


def _overlap(one: Path, other: Path) -> bool:
    """Answer whether one of the paths is the other or lies around it."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]
