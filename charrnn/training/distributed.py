"""Several processes that train one run: started here, by torchrun, or by SLURM's srun.

Each process is a rank of ``torch.distributed`` and reads torchrun's environment variables, which
:func:`launch` sets for the processes that it starts. A rank that fails ends all of them, and its
error is reported once. Importing this file does not import torch.
"""

import datetime
import multiprocessing
import multiprocessing.reduction
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection
from typing import NamedTuple

from charrnn.data.waiting import SECONDS, say_if_slow
from charrnn.errors import InputError
from charrnn.training import signals

WAIT = 600.0
"""Seconds that ranks wait for each other at the beginning."""
READ_BY_LIGHTNING = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Environment variables of which Lightning makes a number when it is imported."""
GRACE = 5.0  # seconds that other ranks get to end by themselves, and again after SIGTERM


class Ranks(NamedTuple):
    """The position of this process among all processes of its run."""

    rank: int
    world_size: int
    local_world_size: int
    """Processes on each machine."""


def current_ranks() -> Ranks | None:
    """Read the ranks of this process from the environment of torchrun or srun.

    Returns:
        None for a run of a single process.
    """
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:  # torchrun and launch()
        found = Ranks(*map(whole_number, ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")))
    elif "SLURM_PROCID" in env and env.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        tasks, nodes = (whole_number(f"SLURM_{k}", "1") for k in ("NTASKS", "NNODES"))
        found = Ranks(whole_number("SLURM_PROCID"), tasks, tasks // max(1, nodes))
    else:
        return None
    return found if found.world_size > 1 else None


def check_environment() -> None:
    """Raise InputError, before Lightning is imported, for a rank that is no number."""
    for name in READ_BY_LIGHTNING:
        whole_number(name, "0")


def whole_number(name: str, default: str = "") -> int:
    """The number that an environment variable holds.

    Raises:
        InputError: it holds something else.
    """
    value = os.environ.get(name, default)
    if not re.fullmatch("-?[0-9]+", value):
        raise InputError(f"{name}={value}: this environment variable must be a whole number")
    return int(value)


def is_rank_zero() -> bool:
    """Whether this process is rank zero of its run, or the only process of it."""
    ranks = current_ranks()
    return ranks is None or ranks.rank == 0


def rendezvous_store():
    """Connect to a key-value store that all ranks share, at torch's own rendezvous address.

    Returns:
        A ``torch.distributed.Store``, usable before the process group is initialized.
    """
    from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
    from torch import distributed

    ranks = current_ranks()
    in_torchrun = TorchElasticEnvironment.detect()
    if not in_torchrun:  # Lightning asks for it, though srun sets it for its option only
        os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(ranks.local_world_size))
    kind = TorchElasticEnvironment if in_torchrun else SLURMEnvironment
    host, port = kind().main_address, kind().main_port
    # The server lives as long as its process; torch shares it when it asks for the same port.
    try:
        with say_if_slow(f"waiting for process 0, at {host}:{port}"):
            store = distributed.TCPStore(
                host, port, ranks.world_size, ranks.rank == 0 and not in_torchrun,
                datetime.timedelta(seconds=WAIT), wait_for_workers=False, multi_tenant=True,
            )  # fmt: skip
    except RuntimeError as error:  # of torch.distributed
        raise InputError(f"process {ranks.rank}: no process 0 at {host}:{port}") from error
    wait_for_ranks(store, ranks)
    # Connecting has a timeout, but rank zero may encode a large text for hours.
    store.set_timeout(datetime.timedelta(hours=6))
    return distributed.PrefixStore("charrnn", store)


def outlast(store, key: str, count: int) -> None:
    """Wait until ``count`` other ranks have added one to ``key``, or for :data:`GRACE` seconds.

    The store ends with rank zero, and ranks that have not read from it by then only time out.
    """
    end = time.monotonic() + GRACE
    while store.add(key, 0) < count and time.monotonic() < end:
        time.sleep(0.02)


def wait_for_ranks(store, ranks: Ranks) -> None:
    """Wait, in rank zero, until all ranks have come.

    A line on standard error says how many are missing.

    Raises:
        InputError: they are still missing after ``WAIT`` seconds.
    """
    store.add("arrived", 1)
    begin, named = time.monotonic(), False
    while ranks.rank == 0 and (missing := ranks.world_size - store.add("arrived", 0)) > 0:
        waited = time.monotonic() - begin
        if waited > WAIT:
            raise InputError(
                f"{missing} of {ranks.world_size} processes did not come; start as many as are"
                " declared, or fewer"
            )
        if waited > SECONDS and not named:
            named = True
            noun = "process" if missing == 1 else "processes"
            print(f"waiting for {missing} more {noun}", file=sys.stderr, flush=True)
        time.sleep(0.02)


def mute_stdout() -> None:
    """Discard what this rank prints: rank zero prints the same. Standard error stays."""
    sys.stdout.flush()
    sys.stdout = open(os.devnull, "w")


class InheritedFile:
    """A file descriptor, and with it its lock, that is duplicated into the process it is sent to.

    Args:
        file: an open file or lock; its descriptor is ``file.fileno()``.
    """

    def __init__(self, file):
        self.descriptor = file.fileno()

    def __getstate__(self):
        return multiprocessing.reduction.DupFd(self.descriptor)

    def __setstate__(self, duplicate) -> None:
        self.descriptor = duplicate.detach()


def launch(work: Callable, count: int, locks: Sequence, *args):
    """Run ``work(*args)`` in ``count`` processes of this machine and wait for them.

    Signals that end a run are forwarded to the processes, and then end this process with the exit
    code that the run would have had. If this process is killed, the others save and exit.

    Args:
        work: an importable function; all ranks call it.
        count: number of processes.
        locks: objects with a ``fileno()``, such as :class:`charrnn.runs.lock.RunLock`. The
            processes hold these locks as long as they live. A ``fileno()`` of None is skipped.

    Returns:
        What ``work`` returned in rank zero.

    Raises:
        InputError: as raised by the first rank that failed.
        RuntimeError: with the traceback of the first rank that failed.
    """
    from torch.distributed import TCPStore
    from torch.multiprocessing import start_processes
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

    # Unlike fork, neither method copies threads or a GPU context.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload(["__main__", "pytorch_lightning"])
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    results = context.SimpleQueue()
    inherited = [InheritedFile(lock) for lock in locks if lock.fileno() is not None]
    everything = (count, store.port, dict(os.environ), results, inherited, work, args)
    processes = start_processes(_run_rank, everything, count, join=False, start_method=method)

    def forward(number: int) -> None:
        for process in processes.processes:
            if process.is_alive():
                # A request to requeue is answered by this process, once the ranks have saved.
                ends = number in signals.ENDING
                os.kill(process.pid, number if ends else signal.SIGTERM)

    failed = killed = None
    with signals.Listener(forward) as listener:
        try:
            ended = False
            while not ended:
                connection.wait(processes.sentinels)
                # The ranks that lost a killed one may have ended too, and join may report those.
                if killed is None:
                    codes = enumerate(process.exitcode or 0 for process in processes.processes)
                    killed = next(((i, -code) for i, code in codes if code < 0), None)
                ended = processes.join(grace_period=GRACE)
        except (ProcessExitedException, ProcessRaisedException) as error:
            failed = error
        kind, value = (None, None) if results.empty() else results.get()
        if listener.number and kind != "input":  # "input": the run could not be saved
            listener.exit()
    if kind == "input":
        raise InputError(value)
    if failed is None:
        return value
    code = getattr(failed, "exit_code", 1)
    if code in [128 + number for number in signals.ENDING]:
        raise SystemExit(code)
    if killed:  # the errors of the other ranks only follow from it
        rank, number = killed
        raise RuntimeError(f"process {rank} terminated with signal {signal.Signals(number).name}")
    raise RuntimeError(value if kind else str(failed))


def _run_rank(
    rank: int, count: int, port: int, env: dict, results, inherited, work: Callable, args
) -> None:
    """The body of each process that :func:`launch` starts."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C of a terminal is forwarded by the waiting process, once
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    os.environ.clear()
    # SLURM's variables describe the waiting process.
    os.environ.update({k: v for k, v in env.items() if not k.startswith("SLURM_")})
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "NODE_RANK": "0",
        "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RUN_ID": "charrnn",
    }  # fmt: skip
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        value = work(*args)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except InputError as error:
        results.put(("input", str(error)))
        sys.exit(2)
    except Exception:
        # Only the end of it, to fit into a pipe that nobody reads yet.
        results.put(("error", f"process {rank} failed\n{traceback.format_exc()[-10_000:]}"))
        sys.exit(1)
    if rank == 0:
        results.put(("value", value))


def _exit_with_parent() -> None:
    """Save and exit when the waiting process is killed."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
    os._exit(1)
