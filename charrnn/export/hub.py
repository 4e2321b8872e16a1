"""A folder goes to a model hub: the only file that knows huggingface_hub."""

import re
from pathlib import Path

from charrnn.errors import InputError, check, one_line
from charrnn.export.extra import import_extra


def push(folder: Path, name: str) -> str:
    """Upload a folder to USER/NAME, which is made where it is missing; return its address.

    The account is that of huggingface_hub's own configuration.

    Raises:
        InputError: huggingface_hub is not installed, or the upload failed.
    """
    check_name(name)
    api = import_extra("huggingface_hub", "hub").HfApi()
    try:
        address = str(api.create_repo(name, exist_ok=True))
        api.upload_folder(repo_id=name, folder_path=str(folder), commit_message="charrnn export")
    except Exception as error:  # of several libraries below it
        reason = one_line(str(error))[:200]
        raise InputError(f"--push {name}: {type(error).__name__}: {reason}") from error
    return address


def check_name(name: str) -> None:
    """Raise InputError unless a name is USER/NAME."""
    ok = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name, re.ASCII) is not None
    check("--push", name, ok, "USER/NAME")
