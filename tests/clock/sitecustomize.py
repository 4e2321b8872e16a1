"""A clock that is set while a process runs: by $CLOCK_JUMP seconds, one second after it began.

Python imports this file where it is on its path. The monotonic clock goes on as ever.
"""

import os
import time

real, begun = time.time, time.monotonic()


def set_clock() -> float:
    jump = float(os.environ.get("CLOCK_JUMP", 0))
    return real() + (jump if time.monotonic() - begun > 1 else 0)


time.time = set_clock
