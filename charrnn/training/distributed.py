"""Several processes for one run: started here, by torchrun, or by SLURM's srun.

Each is a rank of torch.distributed, with torchrun's environment variables (those that are started
here get the same). A rank that fails ends all of them, and is heard once.
"""

import datetime
import multiprocessing
import multiprocessing.reduction
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing import connection
from typing import NamedTuple

from charrnn.errors import InputError
from charrnn.training import signals

GRACE = 5.0  # seconds in which the other ranks may end by themselves, and then once more at SIGTERM


class Place(NamedTuple):
    """A process among those of its run."""

    rank: int
    world_size: int
    per_node: int
    """Processes on each machine."""


def place() -> Place | None:
    """This process among several that were started before Python; None where it is alone."""
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:  # torchrun's, and ours
        found = Place(*(int(env[k]) for k in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")))
    elif "SLURM_PROCID" in env and env.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        tasks, nodes = (int(env.get(f"SLURM_{k}", 1)) for k in ("NTASKS", "NNODES"))
        found = Place(int(env["SLURM_PROCID"]), tasks, tasks // nodes)
    else:
        return None
    return found if found.world_size > 1 else None


def meeting_point():
    """A store that all processes of the run read and write, where torch's own will be."""
    from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
    from torch import distributed

    here = place()
    kind = TorchElasticEnvironment if TorchElasticEnvironment.detect() else SLURMEnvironment
    url = f"tcp://{kind().main_address}:{kind().main_port}"
    # It lives as long as its process: torch shares the server when it comes to the same port.
    store, *_ = next(distributed.rendezvous(url, here.rank, here.world_size))
    # To be met within the default; but a large text is encoded by the first rank alone.
    store.set_timeout(datetime.timedelta(hours=6))
    return distributed.PrefixStore("charrnn", store)


def quiet() -> None:
    """What every rank says is heard from the first one only; errors are on standard error."""
    sys.stdout.flush()
    sys.stdout = open(os.devnull, "w")


class Inherited:
    """A file that a process which gets this as an argument has open too, and its lock with it."""

    def __init__(self, file):
        self.descriptor = file.fileno()

    def __getstate__(self):
        return multiprocessing.reduction.DupFd(self.descriptor)

    def __setstate__(self, duplicate) -> None:
        self.descriptor = duplicate.detach()


def run(work: Callable, count: int, files: list, *args):
    """What ``work(*args)`` returns in rank 0 of so many processes of this machine.

    Signals that end a run are handed on to them, and end this process as they would have ended
    the run; where this process is killed, they save and end.

    Args:
        files: open ones, whose locks they hold as long as they live.

    Raises:
        InputError: as the first rank that failed had it.
        RuntimeError: with the traceback of the first rank that failed.
    """
    from torch.distributed import TCPStore
    from torch.multiprocessing import start_processes
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

    # Neither method hands on threads or a GPU's context, which fork does.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload(["__main__", "pytorch_lightning"])
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    results = context.SimpleQueue()
    files = [Inherited(file) for file in files]
    everything = (count, store.port, dict(os.environ), results, files, work, args)
    processes = start_processes(one_rank, everything, count, join=False, start_method=method)

    def hand_on(number: int) -> None:
        for process in processes.processes:
            if process.is_alive():
                # What asks for a requeue is answered here, when they have saved.
                ends = number in (signal.SIGINT, signal.SIGTERM)
                os.kill(process.pid, number if ends else signal.SIGTERM)

    failed = killed = None
    with signals.Listener(hand_on) as listener:
        try:
            ended = False
            while not ended:
                connection.wait(processes.sentinels)
                # Whoever misses a killed one may have ended too, and join may look at it first.
                if killed is None:
                    codes = enumerate(process.exitcode or 0 for process in processes.processes)
                    killed = next(((i, -code) for i, code in codes if code < 0), None)
                ended = processes.join(grace_period=GRACE)
        except (ProcessExitedException, ProcessRaisedException) as error:
            failed = error
        kind, value = (None, None) if results.empty() else results.get()
        if listener.number and kind != "input":  # that it could not be saved
            listener.leave()
    if kind == "input":
        raise InputError(value)
    if failed is None:
        return value
    code = getattr(failed, "exit_code", 1)
    if code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        raise SystemExit(code)
    if killed:  # whom the others only miss
        rank, number = killed
        raise RuntimeError(f"process {rank} terminated with signal {signal.Signals(number).name}")
    raise RuntimeError(value if kind else str(failed))


def one_rank(
    index: int, count: int, port: int, env: dict, results, files, work: Callable, args
) -> None:
    """One process of :func:`run`."""
    if hasattr(os, "setsid"):
        os.setsid()  # a terminal's Ctrl-C comes from the process that waits, and once
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    os.environ.clear()
    # What SLURM says is about the process that waits.
    os.environ.update({k: v for k, v in env.items() if not k.startswith("SLURM_")})
    os.environ |= {
        "RANK": str(index), "LOCAL_RANK": str(index), "GROUP_RANK": "0", "NODE_RANK": "0",
        "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RUN_ID": "charrnn",
    }  # fmt: skip
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        value = work(*args)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except InputError as error:
        results.put(("input", str(error)))
        sys.exit(2)
    except Exception:
        # The end of it, which fits into a pipe that nobody reads yet.
        results.put(("error", f"process {index} failed\n{traceback.format_exc()[-10_000:]}"))
        sys.exit(1)
    if index == 0:
        results.put(("value", value))


def end_with_parent() -> None:
    """Save and end where the process that waits was killed."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
    os._exit(1)
