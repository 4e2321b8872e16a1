"""The main module of a rank that a child of zygote.py starts: it writes where that child writes.

A server that has imported everything forks the ranks of all children, and its own output is none
of theirs. See ``share_ranks`` in zygote.py, which puts the names of two files before the arguments.
"""

import gc
import os
import sys

if __name__ == "__mp_main__":
    gc.freeze()  # or its first collection would copy every page that holds an object
    for number in (1, 2):
        os.dup2(os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
