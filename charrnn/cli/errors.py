"""One line for what is wrong: the only file that matches sentences of other libraries' errors."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from charrnn.cli.keys import CONF, groups, known_keys, nearest, options_with
from charrnn.cli.streams import GONE, UNWRITABLE, suppress_lost_output
from charrnn.errors import InputError, escape_control, format_value, one_line

if TYPE_CHECKING:
    from charrnn.cli.arguments import Command

EXTRAS = {"joblib": "joblib", "submitit_local": "slurm",
          "submitit_slurm": "slurm"}  # fmt: skip
"""The extra that installs a sweeper or a launcher."""


BUG = (
    "error: a bug of charrnn, unless a class of yours raised it; please report it with the command,"
    " the lines below, and .hydra/about.yaml of the run"
)
"""The line above the traceback of an error that no input explains."""


@contextlib.contextmanager
def one_line_errors(command: "Command | None" = None) -> Iterator[None]:
    """Print an error of input in one line and exit with 2; exit with 130 after Ctrl-C.

    Other errors keep their traceback, below a line that says what to do with it; all do where
    ``CHARRNN_TRACEBACK`` is set.

    Args:
        command: the command line, where it was read already.
    """
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)  # freeing memory may take a second more
        sys.exit(130)
    except BrokenPipeError:  # as with `sample.py | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        line = explain(error, command)
        if not line and not getattr(error, "is_reported", False):
            error.is_reported = True  # such blocks are nested
            print(BUG, file=sys.stderr, flush=True)
        if os.environ.get("CHARRNN_TRACEBACK") or not line:
            raise
        if sys.stdout is not None:
            with suppress_lost_output():
                sys.stdout.flush()
        print(f"error: {escape_control(line)}", file=sys.stderr)
        sys.exit(2)


def explain(error: BaseException, command: "Command | None" = None) -> str | None:
    """One line for an error that the user's input caused; None for a bug."""
    text = one_line(str(error))
    if isinstance(error, InputError):
        return text
    if isinstance(error, OSError) and error.filename:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    if isinstance(error, OSError) and error.errno in (*UNWRITABLE, *GONE):
        return f"a file cannot be written ({error.strerror})"
    if isinstance(error, MemoryError):
        return "not enough memory for these sizes"
    if isinstance(error, RuntimeError) and text == "can't start new thread":
        return "the system starts no more threads; allow more by ulimit -u, or more memory by -v"
    if match := re.match(r"Could not (?:override|append to|delete) '([^']*)'", text):
        return no_such_key(match[1], command)
    if text.startswith("Config group override must be a string"):
        overrides = command.overrides if command else ()
        given = [a for a in overrides if a.partition("=")[0].lstrip("+") in (*groups(), "hydra")]
        return f"{' '.join(given)}: names no option of its group; --help lists them"
    if type(error).__module__.startswith(("hydra.", "omegaconf.")):
        if match := re.search(r"Could not find 'hydra/(sweeper|launcher)/(\w+)'", text):
            extra = EXTRAS.get(match[2], "dev")
            return f'{match[2]}: not installed; pip install "charrnn[{extra}]"'
        options = r"Could not find '([^']+)/([^'/]+)' Available options in \S+ (.+?) Config search"
        if match := re.search(options, text):
            group, name, options = match.groups()
            return f"{group}={name}: no such option; there are {', '.join(options.split())}"
        if match := re.search(r"Could not load '([^'/]+)/([^']+)'", text):  # one of several
            group, name = match.groups()
            names = ", ".join(sorted(file.stem for file in (CONF / group).glob("*.yaml")))
            return f"{group}={name}: no such option; there are {names}"
        if match := re.match(r"Missing key (\S+)", text):
            return f"{match[1]}: every run needs this; it cannot be left out"
        if type(error).__name__ == "OverrideParseException":
            typed = getattr(error, "override", "")
            return f"{typed}: no KEY=VALUE that can be read; quote what is special in it"
        if text.startswith("Error merging override") and error.__cause__ is not None:
            return (
                f"{text.removeprefix('Error merging override ')}: {one_line(str(error.__cause__))}"
            )
        if match := re.search(r"Key '(sampler|pruner)' not in '\w+Sweeper", text):
            return f"{match[1]}: only a search has one; give sweep=search too"
        if match := re.search(r"Missing mandatory value: (\S+)", text):
            key = getattr(error, "full_key", None) or match[1]
            return f"{key}: missing; give {key}=VALUE"
        return text
    if type(error).__module__.startswith(("submitit.", "joblib.")):
        return f"launcher: {text}"
    if type(error).__module__.startswith(("wandb.", "mlflow.")):  # no account, no server
        return f"logger: {text}"
    if type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
        return (
            "the GPU's memory is too small for these sizes; halve data.batch_size or data.seq_len"
        )
    if isinstance(error, RuntimeError | IndexError) and re.match(
        r"a GRU kernel|index -?\d+ is", text
    ):
        return text  # of charrnn.gru.cuda.nvrtc
    if isinstance(error, RuntimeError) and "CUDA error" in text:
        from charrnn.gru.cuda import nvrtc

        reported = nvrtc.failure()  # which names the sizes, as CUDA does not
        return None if reported is None else str(reported)
    if isinstance(error, RuntimeError) and "parameters that were not used in producing" in text:
        return (
            "model: a parameter gets no gradient, as several processes need; leave it out, or give"
            " trainer.strategy._target_=pytorch_lightning.strategies.DDPStrategy"
            " trainer.strategy.find_unused_parameters=true"
        )
    too_large = ("can't allocate memory", "Storage size calculation overflowed")
    if isinstance(error, RuntimeError) and any(words in text for words in too_large):
        return f"not enough memory for these sizes: {text}"
    if isinstance(error, RuntimeError) and text.startswith("Early stopping conditioned on metric"):
        return f"callbacks: {text}"
    if isinstance(error, RuntimeError) and text.startswith("Found more than one stateful callback"):
        return f"callbacks: {text}"
    if type(error).__name__ == "MisconfigurationException":  # Lightning's, of a trainer's setting
        return f"trainer: {text}"
    return None


def no_such_key(key: str, command: "Command | None") -> str:
    """One line for an override that Hydra could not apply."""
    name, kind = (command.name, command.kind) if command else ("train", "new")
    known = known_keys(name)
    if key not in known:
        return f"{key}: no such key{nearest(key, known)}"
    if kind == "resumed":
        return (
            f"{key}: cannot be changed in a run that is resumed; start a new one, with"
            " init_from=RUN for its weights"
        )
    if kind == "reproduced":
        return f"{key}: a run that is reproduced keeps it; only single keys may differ"
    group = key.partition(".")[0]
    overrides = command.overrides if command else ()
    chosen = [o.lstrip("+") for o in overrides if o.lstrip("+").partition("=")[0] == group]
    if (having := options_with(key)) and chosen and chosen[-1] not in having:
        return f"{key}: is a key of {' and '.join(having)}, not of {chosen[-1]}; leave out either"
    above = key.rpartition(".")[0]
    reason = f", since another setting has {above}=null" if above else ""
    return f"{key}: nothing reads this key{reason}"


def name_key(prefix: str, node: Mapping, error: BaseException) -> Exception:
    """An error of a ``_target_``, as an InputError that begins with the key that it is about."""
    text = one_line(str(error))
    if isinstance(error, InputError):
        return InputError(f"{prefix}.{text}" if re.match(r"\w+=", text) else text)
    if not (
        isinstance(error, ValueError | TypeError | ImportError) or "Misconfiguration" in repr(error)
    ):
        return error if isinstance(error, Exception) else InputError(text)
    # Other libraries name the key, or its value only.
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


def instantiation_key(error: BaseException) -> str:
    """The key that an error of Hydra's ``instantiate`` names; empty where it names none."""
    _, _, rest = str(error).partition("full_key: ")
    return rest.split()[0] if rest.split() else ""
