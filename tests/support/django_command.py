"""`manage.py reproq …` in this process: arguments in; exit code and output out."""

import io
from typing import Any

from django.core.management import call_command
from django.core.management.base import CommandError

from tests.support.program import Done


def manage(*arguments: object) -> Done:
    """Run `manage.py reproq` with these arguments."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    try:
        call_command("reproq", *map(str, arguments), stdout=out, stderr=err)
    except CommandError as error:
        code = error.returncode
        err.write(f"{error}\n")
    return Done(code, out.getvalue(), err.getvalue())
