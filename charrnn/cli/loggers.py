"""The loggers of a run: built from the group ``logger``, and what they left, named at its end."""

import contextlib
import importlib.util
import inspect
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytorch_lightning.loggers import (
    CSVLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)

from charrnn.cli.instantiate import get_class, instantiate
from charrnn.data.files import relative_path, shell_path
from charrnn.errors import InputError

MODULES = {WandbLogger: "wandb", MLFlowLogger: "mlflow", TensorBoardLogger: "tensorboard"}
"""What must be installed for a logger; the extra of charrnn has the same name."""

ALLOW_FILES = "MLFLOW_ALLOW_FILE_STORE"
"""Environment variable without which MLflow 3 takes databases only, not files."""


def build_loggers(nodes: Mapping | None, folder: Path) -> list[Logger]:
    """Build the loggers of a run.

    Their files go into the run's folder, and a name that is null is that of the folder.

    Args:
        nodes: settings of a logger by name; or those of a single logger, as runs of 0.1 have them.
        folder: of the run.

    Raises:
        InputError: a logger is not installed, or refuses its settings.
    """
    if nodes and "_target_" in nodes:
        return [build_logger("logger", nodes, folder)]
    return [build_logger(f"logger.{k}", node, folder) for k, node in (nodes or {}).items() if node]


def build_logger(key: str, node: Mapping, folder: Path) -> Logger:
    """Build the logger of one key; see :func:`build_loggers`."""
    found = get_class(node)
    for kind, module in MODULES.items():
        if issubclass(found, kind) and importlib.util.find_spec(module) is None:
            raise InputError(f'{key}: {module} is not installed; pip install "charrnn[{module}]"')
    if issubclass(found, MLFlowLogger):
        os.environ.setdefault(ALLOW_FILES, "true")
    parameters = inspect.signature(found).parameters
    own = {}
    if "save_dir" in parameters:
        default = parameters["save_dir"].default  # "./mlruns" of MLflow, which wants its own
        default = default if isinstance(default, str) else "."
        own["save_dir"] = str(folder / (node.get("save_dir") or default))
    own |= {k: folder.name for k in ("name", "run_name") if k in node and node[k] is None}
    if issubclass(found, WandbLogger) and not (node.get("id") or node.get("version")):
        own["id"] = next(reversed(wandb_folders(own["save_dir"]).values()), None)
    logger = instantiate(key, node, **own)
    if not isinstance(logger, Logger):
        raise InputError(f"{key}._target_={node['_target_']}: is no logger of Lightning's")
    if isinstance(logger, CSVLogger) and Path(logger.log_dir) == folder:
        raise InputError(f"{key}: its metrics.csv would be that of the run; give it a name")
    return logger


def wandb_folders(save_dir: str | Path) -> dict[Path, str]:
    """The folders that W&B wrote below one, oldest first, and the id of the run of each.

    A run that is resumed continues the last, in a folder of its own with the same id.
    """
    found = {}
    for folder in (Path(save_dir) / "wandb").glob("*run-*"):
        if match := re.fullmatch(r"(?:offline-)?run-(\d+_\d+)-(.+)", folder.name):
            found[folder] = match
    return {folder: found[folder][2] for folder in sorted(found, key=lambda f: found[f][1])}


def curves(loggers: list[Logger], job) -> list[str]:
    """What to look at, one line for each logger, and metrics.csv where there is no other.

    Args:
        job: a :class:`charrnn.cli.prepare.Job`.
    """
    lines, here = [], job.cwd
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            folder = Path(logger.log_dir)
            folder = folder.parent if folder.name == "tensorboard" else folder
            lines.append(f"{job.program.tools} tensorboard {shell_path(folder, here)}")
        elif isinstance(logger, CSVLogger):
            lines.append(relative_path(Path(logger.log_dir) / "metrics.csv", here))
        elif isinstance(logger, WandbLogger):
            import wandb  # whose run there is none of where nothing was left to train

            url = wandb.run and wandb.run.url
            parts = [
                f for f, run in wandb_folders(logger.save_dir).items() if run == logger.version
            ]
            lines.append(url or f"wandb sync {' '.join(shell_path(part, here) for part in parts)}")
        elif isinstance(logger, MLFlowLogger):
            ui = f"{ALLOW_FILES}=true mlflow ui --backend-store-uri"
            local, server = logger.save_dir, logger.experiment.tracking_uri
            lines.append(f"{ui} {shell_path(local, here)}" if local else server)
    file = job.folder / "metrics.csv"
    if not lines and file.exists():
        lines.append(relative_path(file, here))
    return [f"{'curves' if not number else '':17}{line}" for number, line in enumerate(lines)]


def close_loggers(loggers: list[Logger], code: int = 0) -> None:
    """End the run of W&B, which would otherwise end with the process, and be that of the next.

    Args:
        code: an exit code; not 0 where the run failed or was interrupted.
    """
    if any(isinstance(logger, WandbLogger) for logger in loggers):
        import wandb

        wandb.finish(code)


@contextlib.contextmanager
def closing(loggers: list[Logger]) -> Iterator[None]:
    """Close loggers at the end, however it comes."""
    try:
        yield
    except BaseException:
        close_loggers(loggers, 1)
        raise
    close_loggers(loggers)
