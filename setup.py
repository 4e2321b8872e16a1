"""Puts the kernels of charrnn/gru/csrc into wheels, compiled for several levels of processors.

Without a C++ compiler the wheel is pure, and says so. An editable install compiles on first use.
"""

import runpy
import sys
import tempfile
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

compiling = runpy.run_path(str(Path(__file__).parent / "charrnn" / "gru" / "compile.py"))


class BuildFiles(build_py):
    """Also copies the libraries that :class:`Wheel` compiled."""

    libraries = ()

    def run(self):
        super().run()
        folder = Path(self.build_lib) / "charrnn" / "gru" / "lib"
        for file in self.libraries:
            self.mkpath(str(folder))
            self.copy_file(str(file), str(folder / file.name))


class Wheel(bdist_wheel):
    """One wheel for all versions of Python and torch on a platform: nothing links to them."""

    def run(self):
        with tempfile.TemporaryDirectory() as folder:
            try:
                libraries = compile_levels(Path(folder))
            except compiling["CompileError"] as error:
                print(f"charrnn: {error}; this wheel is pure: it has no kernels", file=sys.stderr)
            else:
                self.root_is_pure = False
                self.distribution.has_ext_modules = lambda: True  # files go to platlib
                self.get_finalized_command("build_py").libraries = libraries
            super().run()

    def get_tag(self):
        return ("py3", "none", super().get_tag()[2])


def compile_levels(folder: Path) -> list[Path]:
    """Return the libraries of all levels. Raises CompileError."""
    libraries = []
    for level in compiling["LEVELS"]:
        print(f"charrnn: compiling the kernels for {level}", file=sys.stderr)
        libraries.append(folder / f"{level}.so")
        compiling["compile_kernels"](libraries[-1], level, compiling["FLAGS"])
    if len(libraries) > 1:
        libraries.append(folder / "level.so")
        compiling["compile_level"](libraries[-1])
    return libraries


setup(cmdclass={"build_py": BuildFiles, "bdist_wheel": Wheel})
