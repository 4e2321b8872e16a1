"""A process that has imported everything once and forks for every command line it is sent.

Each child is a process of its own, as from a shell, without the seconds of imports. Lines of JSON
on standard input: {"argv", "cwd", "env", "out", "err", "session"} starts one and answers its pid;
{"wait": pid} answers its exit code, negative for a signal. A variable that is null is removed from
the environment; with "session", the child leads a group of processes. With "tty", the name of a
terminal, that is where it reads and writes, in place of files.
"""

import atexit
import contextlib
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import threading
from multiprocessing import forkserver, spawn

import rank_of_child

IMPORTED = (
    "hydra", "pooch", "pytorch_lightning", "torch.utils.tensorboard", "charrnn.callbacks.neurons",
    "charrnn.cli.fit", "charrnn.cli.sample", "charrnn.cli.sweep", "charrnn.cli.train",
    "charrnn.evaluation.report", "charrnn.gru.generate", "charrnn.gru.loss", "charrnn.gru.native",
    "charrnn.training.schedulers", "charrnn.training.task",
)  # fmt: skip


def child(request: dict) -> None:
    """Run a command line, in the process that was forked for it."""
    os.chdir(request["cwd"])
    names = os.devnull, request.get("out"), request.get("err")
    if "tty" in request or request["session"]:
        # Where the tests run in a shell's background or by nohup, these are ignored, which in a
        # terminal they are not.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.setsid()  # so that the terminal becomes its own when it is opened, and Ctrl-C reaches it
    if "tty" in request:
        names = [request["tty"]] * 3
    for number, name in enumerate(names):
        writing = os.O_WRONLY | os.O_CREAT | os.O_APPEND  # as its ranks do
        file = os.open(name, os.O_RDONLY if number == 0 else writing)
        os.dup2(file, number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # less what this process has read
    if "tty" in request:  # these were opened as what they are no longer
        sys.stdout, sys.stderr = (open(n, "w", encoding="utf-8", closefd=False) for n in (1, 2))
    for key, value in request["env"].items():
        os.environ.pop(key, None) if value is None else os.environ.update({key: value})
    share_ranks(names[1:])
    tempfile.tempdir = None  # as TMPDIR says now
    sys.argv = request["argv"]
    path = (request["env"].get("PYTHONPATH") or "").split(os.pathsep)
    sys.path[:1] = [os.path.dirname(request["argv"][0]), *filter(None, path)]
    code = 0
    try:
        runpy.run_path(request["argv"][0], run_name="__main__")
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        code = end.code or 0
    leave(code)


def start_forkserver() -> None:
    """The server of ``distributed.launch``, once for all children, instead of one of each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    forkserver.ensure_running()


def share_ranks(output: list[str]) -> None:
    """Let the ranks that this child starts come from the common server, and write where it does."""
    if not forkserver._forkserver._forkserver_pid:
        return
    forkserver._forkserver.ensure_running = lambda: None  # it cannot wait for a child of another
    preparation = spawn.get_preparation_data

    def with_output(process: str) -> dict:
        data = preparation(process)
        data.pop("init_main_from_name", None)
        data["init_main_from_path"] = rank_of_child.__file__
        name, *arguments = data["sys_argv"]
        data["sys_argv"] = [name, *output, *arguments]
        return data

    spawn.get_preparation_data = with_output


def leave(code: int) -> None:
    """Exit as the interpreter does, but for the second that it takes to free what was imported."""
    threading._shutdown()
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):  # closed, or nobody reads: it has its own way
        sys.exit(code)
    os._exit(code & 0xFF)


def wait(pid: int, seconds: float = 300) -> int:
    """The exit code of a child, which is killed after so long: a test fails, and none hangs."""
    timer = threading.Timer(seconds, os.kill, (pid, signal.SIGKILL))
    timer.start()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    timer.cancel()
    timer.join()
    return code


def main() -> None:
    """Import, and then start a child for each request."""
    sys.path[0] = os.path.dirname(sys.path[0])  # where train.py is
    for name in IMPORTED:
        importlib.import_module(name)
    # Hydra looks for plugins and parses conf/ when it composes first: 0.3 s less for each child.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        importlib.import_module("charrnn.cli.main").main(["train", "--cfg", "job"])
    gc.freeze()  # or each child's first collection would copy every page that holds an object
    while line := sys.stdin.readline():
        request = json.loads(line)
        if "wait" in request:
            print(wait(request["wait"]), flush=True)
            continue
        if any("devices=" in argument for argument in request["argv"]):
            start_forkserver()
        if not (answer := os.fork()):
            return child(request)
        print(answer, flush=True)


if __name__ == "__main__":
    main()
