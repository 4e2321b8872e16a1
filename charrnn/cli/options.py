"""Options --NAME of the commands that have no settings: parsed with errors in one line."""

import argparse

from charrnn.errors import InputError


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are InputError."""

    def __init__(self, program: str, description: str):
        super().__init__(prog=program, description=description, allow_abbrev=False)

    def error(self, message: str):
        raise InputError(f"{message}; {self.prog} --help shows how")
