"""Work for the ranks of ``distributed.launch``, in a module that their processes can import."""

import os
import signal


def one_killed():
    """Rank 1 is killed; the others fail."""
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError("missed")
