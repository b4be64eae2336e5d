"""From a cron line and the name of a zone to what `core.policy.cron` computes with; croniter reads the line.

Its own search is not used: where clocks are put forward or back it skips or repeats firings. `tests/property/test_cron.py` has the model.
"""

import re
from collections.abc import Sequence
from datetime import UTC, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from reproq_supervisor.core.policy.cron import LAST, Cron

_PREFIX = re.compile(r"^(?:CRON_)?TZ=(\S+)\s+", re.IGNORECASE)
_MOST_CHARS = 500


class CronError(ValueError):
    """The line or the zone means nothing; the message says what was expected."""


@lru_cache(maxsize=20_000)
def parse_schedule(line: str, timezone: str = "UTC", name: str = "") -> tuple[Cron, tzinfo]:
    """Return what *line* means: five fields, or six with the seconds last, or @daily and the like.

    Args:
      timezone: a name such as Europe/Berlin; ``CRON_TZ=<name>`` before the line wins.
      name: the schedule's; what ``H`` in a field is drawn from.

    Raises:
      CronError: line or zone are not understood.
    """
    prefix = _PREFIX.match(line)
    zone = find_zone(prefix[1] if prefix else timezone)
    return _parse(line[prefix.end() :] if prefix else line, name), zone


def find_zone(name: str) -> tzinfo:
    """Return the zone of a name such as Europe/Berlin.

    Raises:
      CronError: there is none, or this machine has no data of zones.
    """
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError) as error:
        raise CronError(f"expected the name of a time zone, such as UTC or Europe/Berlin, got {name!r}") from error


def _parse(line: str, name: str) -> Cron:
    from croniter import CroniterError, croniter  # 20 ms that only those pay who have schedules

    words = line.split()
    if len(line) > _MOST_CHARS or not (len(words) in (5, 6) or line.strip().startswith("@")):
        raise _expected(line)
    try:
        # With an id @daily and the like would be spread, too.
        fields, nth = croniter.expand(line.strip(), hash_id=None if line.strip().startswith("@") else name.encode() or b"-")
    except (CroniterError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise _expected(line, str(error)) from error
    if any(re.search(r"(?<![a-z])r(?![a-z])", word.lower()) for word in words) or (len(words) > 2 and "w" in words[2].lower()):
        raise _expected(line, "R and W are not supported")
    minutes, hours, days, months, weekdays, *seconds = ([LAST if value == "l" else value for value in field] for field in fields)
    return Cron(
        seconds=_all(seconds[0], range(60)) if seconds else (0,),
        minutes=_all(minutes, range(60)),
        hours=_all(hours, range(24)),
        days=_some(days),
        months=frozenset(_all(months, range(1, 13))),
        weekdays=_some(weekdays),
        nth={weekday: frozenset(LAST if n == "l" else int(n) for n in which) for weekday, which in nth.items()},
        every_hour="*" in hours,
    )


def _all(values: Sequence[object], everything: range) -> tuple[int, ...]:
    return tuple(everything) if "*" in values else tuple(sorted({int(str(value)) for value in values}))


def _some(values: Sequence[object]) -> frozenset[int] | None:
    return None if "*" in values else frozenset(int(str(value)) for value in values)


def _expected(line: str, why: str = "") -> CronError:
    shown = line if len(line) <= 60 else f"{line[:57]}…"
    return CronError(f"expected a cron line such as '*/5 * * * *' or @daily, got {shown!r}{': ' if why else ''}{' '.join(why.split())}")
