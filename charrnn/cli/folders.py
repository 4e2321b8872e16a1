"""Folders of runs and sweeps: which one is new, which one is the newest, and who may use it."""

import contextlib
import itertools
import os
import shutil
import sys
from pathlib import Path

from charrnn.cli.arguments import Program
from charrnn.errors import InputError, escape_control


def newest_run(program: Program) -> Path:
    """The last checkpoint of the newest run at or below the working directory, four folders deep.

    Where there are several runs, a line on standard error names it, since the clock by which it is
    the newest may have been set back.
    """
    files = [f for depth in range(5) for f in Path().glob("*/" * depth + "checkpoints/last.ckpt")]
    if not files:
        raise InputError(
            f"checkpoint=latest: no run in {Path.cwd()}; train one with {program.train}, or give"
            " checkpoint=PATH"
        )
    file = max(files, key=lambda f: f.stat().st_mtime)
    if len(files) > 1:
        print(f"checkpoint={escape_control(str(file))}", file=sys.stderr)
    return file


def check_name(key: str, folder: Path) -> None:
    """Raise InputError for a name that is not UTF-8, where TensorBoard cannot write, or has ``${``,
    of which Hydra makes an interpolation when it reads back where a job is."""
    if "${" in str(folder):
        raise InputError(f"{key}={folder}: Hydra reads ${{...}} in it; name another folder")
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{key}={folder}: its name is not UTF-8; name another folder") from error


def free_run_folder(run: Path, is_named: bool) -> Path:
    """The folder of a new run: the one that is asked for, or with a number where that is taken.

    Args:
        is_named: whether the user named it; it must be free then.

    Raises:
        InputError: it holds a run, or is a file.
    """
    check_name("hydra.run.dir", run)
    for number in itertools.count(2):
        candidate = run if number == 2 else run.with_name(f"{run.name}-{number - 1}")
        if os.path.lexists(candidate) and not candidate.is_dir():  # also a link to nowhere
            raise InputError(f"hydra.run.dir={candidate}: is a file; name another folder")
        if not any((candidate / name).exists() for name in (".hydra", "checkpoints")):
            return candidate
        if is_named:
            raise InputError(
                f"hydra.run.dir={run}: holds a run already; go on with it by resume={run}, or"
                " name another folder"
            )
    raise AssertionError


def claim_run_folder(run: Path) -> bool:
    """Make a new run's folder; False where another process was faster.

    Raises InputError where it cannot be made.
    """
    try:
        (run / ".hydra").mkdir(parents=True)
    except FileExistsError:
        return False
    except OSError as error:
        raise InputError(
            f"hydra.run.dir={run}: cannot be made ({error.strerror}); name another folder"
        ) from error
    return True


def claim_sweep_folder(folder: Path, is_named: bool) -> tuple[Path, list[Path]]:
    """Make a sweep's folder, whose jobs are resumed where the user names one that has some.

    Returns:
        The folder, and those of it and its parents that did not exist before.

    Raises:
        InputError: it is a file, or cannot be made.
    """
    first = folder
    check_name("hydra.sweep.dir", folder)
    for number in itertools.count(2):
        try:
            made = [f for f in (folder, *folder.parents) if not f.exists()]
            folder.mkdir(parents=True, exist_ok=is_named)
            return folder, made
        except FileExistsError:
            if is_named:
                raise InputError(f"hydra.sweep.dir={folder}: is a file; name a folder") from None
            folder = first.with_name(f"{first.name}-{number}")
        except OSError as error:
            raise InputError(
                f"hydra.sweep.dir={folder}: cannot be made ({error.strerror}); name another folder"
            ) from error
    raise AssertionError


def remove_empty(sweep: Path, made: list[Path]) -> None:
    """Remove what :func:`claim_sweep_folder` made for a sweep that was refused as a whole."""
    with contextlib.suppress(OSError):
        (sweep / "multirun.yaml").unlink(missing_ok=True)
        if sweep in made:
            (sweep / "study.journal").unlink(missing_ok=True)
            shutil.rmtree(sweep / ".search", ignore_errors=True)
        for folder in made:
            folder.rmdir()
