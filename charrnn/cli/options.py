"""Options --NAME of the commands that have no settings: parsed with errors in one line."""

import argparse

from charrnn.errors import InputError


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are InputError."""

    def __init__(self, program: str, description: str):
        super().__init__(prog=program, description=description, allow_abbrev=False)

    def parse(self, arguments: list[str]) -> argparse.Namespace:
        """Parse options, and ``allow_targets=[PACKAGE]`` as other commands take it."""
        key = "allow_targets="
        given = [a.removeprefix(key) for a in arguments if a.startswith(key)]
        options = self.parse_args([a for a in arguments if not a.startswith(key)])
        names = given[-1].strip("[]").split(",") if given else []
        options.allow_targets = [name.strip() for name in names if name.strip()]
        return options

    def error(self, message: str):
        raise InputError(f"{message}; {self.prog} --help shows how")
