"""Puts the ring's library beside the package, if the checkout or FF2_RING_LIB has it."""

import os
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

NAME = "libff2_ring.so"


def built_library():
    if "FF2_RING_LIB" in os.environ:
        return Path(os.environ["FF2_RING_LIB"])
    target = Path(__file__).resolve().parents[2] / "target"
    return next((path for kind in ("release", "debug") if (path := target / kind / NAME).exists()), None)


class BuildWithLibrary(build_py):
    def run(self):
        super().run()
        library = built_library()
        if library is None:
            print(f"{NAME} is not built yet: set FF2_RING_LIB when you use the package")
        elif not self.editable_mode:
            shutil.copy(library, Path(self.build_lib) / "ff2" / NAME)


setup(cmdclass={"build_py": BuildWithLibrary})
