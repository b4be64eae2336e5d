"""The order of all steps.

    missing tables ─► columns, NULLs ─► indexes ─► lane, functions, triggers ─► its indexes ─► adoption ─► what is older goes, types

The index for deduplication stands before the trigger that fills its column, so that it guards from the first run on. Triggers for changes
stand before the one for inserts (005, 006), so that no run has a lane row whose changes nobody follows. Adoption comes after both: nothing
slips in between. What older producers and workers rely on goes last, but for what one needs that works beside us.
"""

from functools import cache

from reproq_supervisor.store.schema.adoption import FILE as ADOPTION
from reproq_supervisor.store.schema.adoption import Adoption
from reproq_supervisor.store.schema.coexistence import Coexistence
from reproq_supervisor.store.schema.columns import Columns, Identity, SpecHash
from reproq_supervisor.store.schema.files import FileStep, texts
from reproq_supervisor.store.schema.indexes import (
    COEXISTENCE_INDEXES,
    INDEXES,
    LANE_INDEXES,
    DropOlder,
    DropOlderUnique,
    MakeIndex,
    MakeOlderIndex,
)
from reproq_supervisor.store.schema.parents import Parents
from reproq_supervisor.store.schema.retired import DropRetired
from reproq_supervisor.store.schema.shape import TABLES
from reproq_supervisor.store.schema.step import Step
from reproq_supervisor.store.schema.values import Values

_CONTRACT = 1


@cache
def steps(coexist: bool | None = None) -> tuple[Step, ...]:
    """Return every step that this program knows, in order. *coexist*: switch co-existence with an older worker; None leaves it."""
    files = [(Adoption if version == ADOPTION else FileStep)(version, name, text) for version, (name, text) in texts().items()]
    return (
        *(step for step in files if step.version == _CONTRACT),
        *(Columns(table) for table in TABLES),
        Identity(),
        *(Values(table) for table in TABLES),
        *(MakeIndex(index) for index in INDEXES),
        *(step for step in files if _CONTRACT < step.version < ADOPTION),
        *(MakeIndex(index) for index in LANE_INDEXES),
        *(step for step in files if step.version >= ADOPTION),
        Coexistence(coexist),
        *(MakeOlderIndex(index) for index in COEXISTENCE_INDEXES),
        Parents(),
        DropOlderUnique(),
        SpecHash(),
        DropRetired(),
        DropOlder(),
    )
