"""What a person is told: errors in one line, in streams that pass a full disk."""

import contextlib
import errno
import logging
import os
import re
import sys
import traceback
import typing
from collections.abc import Iterator, Mapping

from charrnn.cli.schema import CONF, known_keys, nearest
from charrnn.errors import InputError, escape_control, format_value, one_line

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # what a disk says that is full or ill
EXTRAS = {
    "optuna": "sweep",
    "joblib": "joblib",
    "submitit_local": "slurm",
    "submitit_slurm": "slurm",
}
"""What installs a sweeper or a launcher."""


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Where an error is one of input, print it in one line and exit with 2; 130 after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # as with `sample.py | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("CHARRNN_TRACEBACK") or not (line := explain(error)):
            raise
        sys.stdout.flush()
        print(f"error: {escape_control(line)}", file=sys.stderr)
        sys.exit(2)


def visible_record(*args, **kwargs) -> logging.LogRecord:
    """What logs get: Hydra says every job's overrides in one."""
    record = logging.LogRecord(*args, **kwargs)
    record.msg, record.args = escape_control(record.getMessage()), ()
    return record


class Lenient:
    """A stream that loses what a full disk does not take, so that a log ends no training."""

    def __init__(self, stream: typing.TextIO):
        self.stream = stream

    def __getattr__(self, name: str):
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with full_disk_passes():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with full_disk_passes():
            self.stream.flush()


def be_lenient() -> None:
    """Have what this process says pass a full disk."""
    for name in ("stdout", "stderr"):
        if not isinstance(stream := getattr(sys, name), Lenient):
            setattr(sys, name, Lenient(stream))


@contextlib.contextmanager
def full_disk_passes() -> Iterator[None]:
    """Let go what cannot be written on a full disk: it must not end a sweep."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise


@contextlib.contextmanager
def errors_that_exit() -> Iterator[None]:
    """End the process at any error: Hydra makes warnings of a callback's, but lets an exit pass."""
    try:
        with one_line_errors():
            yield
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def explain(error: BaseException) -> str | None:
    """One line for an error that a person's input made; None for one of ours."""
    text = one_line(str(error))
    if isinstance(error, InputError):
        return text
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.errno in FULL:
        return f"a file cannot be written ({error.strerror})"
    if match := re.match(r"Could not (?:override|append to|delete) '([^']*)'", text):
        if match[1] in known_keys():
            if "--config-name=resumed" in sys.argv:
                return (
                    f"{match[1]}: cannot be changed in a run that is resumed; start a new one, with"
                    " init_from=RUN for its weights"
                )
            if "--config-name=repeated" in sys.argv:
                return f"{match[1]}: a run that is repeated keeps it; only single keys may differ"
            group = match[1].rpartition(".")[0]
            return f"{match[1]}: nothing reads this key, since another setting has {group}=null"
        return f"{match[1]}: no such key{nearest(match[1])}"
    if text.startswith("Config group override must be a string"):
        groups = {folder.name for folder in CONF.iterdir() if folder.is_dir()}
        given = [a for a in sys.argv[1:] if a.partition("=")[0].lstrip("+") in groups]
        return f"{' '.join(given)}: names no option of its group; --help lists them"
    if type(error).__module__.startswith(("hydra.", "omegaconf.")):
        if match := re.search(r"Could not find 'hydra/(sweeper|launcher)/(\w+)'", text):
            extra = EXTRAS.get(match[2], "dev")
            return f'{match[2]}: not installed; pip install -e ".[{extra}]"'
        if match := re.search(r"Missing mandatory value: (\S+)", text):
            key = getattr(error, "full_key", None) or match[1]
            return f"{key}: missing; give {key}=VALUE"
        return text
    # Optuna's words, by the kind of storage, when it looks for the best trial and there is none.
    if text in ("No trials are completed yet.", "Record does not exist."):
        return "no job of the search finished"
    if type(error).__module__.startswith(("submitit.", "joblib.")):
        return f"launcher: {text}"
    too_large = ("can't allocate memory", "Storage size calculation overflowed")
    if isinstance(error, RuntimeError) and any(words in text for words in too_large):
        return f"not enough memory for these sizes: {text}"
    if type(error).__name__ == "MisconfigurationException":  # Lightning's, of a trainer's setting
        return f"trainer: {text}"
    return None


def named(prefix: str, node: Mapping, error: BaseException) -> Exception:
    """An error of a ``_target_`` as an InputError that begins with the key at fault."""
    text = one_line(str(error))
    if isinstance(error, InputError):
        return InputError(f"{prefix}.{text}" if re.match(r"\w+=", text) else text)
    if not (isinstance(error, ValueError | TypeError) or "Misconfiguration" in repr(error)):
        return error if isinstance(error, Exception) else InputError(text)
    # Other libraries name the key, or its value alone.
    words = set(re.findall(r"\w+", text))
    keys = [k for k in node if k in words]
    values = [
        k
        for k, v in node.items()
        if isinstance(v, int | float | str)
        and re.search(rf"(?<![\w.-]){re.escape(str(v))}(?![\w.])", text)
    ]
    for found in (keys, values):
        if len(found) == 1:
            return InputError(f"{prefix}.{found[0]}={format_value(node[found[0]])}: {text}")
    return InputError(f"{prefix}: {text}")
