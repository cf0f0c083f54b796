"""Programs that cases need: how to see whether they are there, and which Debian package brings them."""

import os
import shutil
import subprocess
from typing import ClassVar

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
"""Where programs are looked for. Servers are in folders that are not in the path of ordinary users."""


class Program:
    """A program that is not part of this repository."""

    name: ClassVar[str]
    package: ClassVar[str]
    """The Debian package to install."""
    programs: ClassVar[tuple[str, ...]]
    """What must be there."""
    version_command: ClassVar[tuple[str, ...]]
    is_heavy: ClassVar[bool] = False
    """Whether it keeps processors busy, so that several of them at the same time have no time for each other."""

    @classmethod
    def missing_package(cls) -> str | None:
        """The package to install if the program is not there."""
        missing = any(shutil.which(program, path=PATH) is None for program in cls.programs)
        return cls.package if missing else None

    @classmethod
    def remedy(cls) -> str | None:
        """The command that installs it if it is not there."""
        package = cls.missing_package()
        return f"apt-get install {package}" if package else None

    @classmethod
    def version(cls) -> str:
        """The first line the program says about its version that has a digit in it."""
        try:
            environment = os.environ | {"PATH": PATH}
            result = subprocess.run(
                cls.version_command, check=False, capture_output=True, text=True, timeout=20, env=environment
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"unknown ({error})"
        lines = (result.stdout + result.stderr).splitlines()
        return next((line.strip() for line in lines if any(map(str.isdigit, line))), "unknown")
