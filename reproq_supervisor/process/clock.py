"""Clocks of this host."""

import time


def boot_time_s() -> float:
    """Seconds since boot, suspended time included: the clock of lease deadlines shared between processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
