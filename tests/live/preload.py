"""Libraries that make a process, and its children, believe something about its machine, by LD_PRELOAD."""

from __future__ import annotations

import subprocess
from pathlib import Path


def build(source: str, folder: Path) -> dict[str, str]:
    """Compiles tests/live/<source> in the folder; returns the environment that loads it."""
    library = folder / Path(source).with_suffix(".so").name
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(Path(__file__).with_name(source)), "-ldl"],
                   check=True)
    return {"LD_PRELOAD": str(library)}


class FullDisk:
    """The disk that a process started with `environment` believes to have, under a part of a path."""

    def __init__(self, folder: Path, under: str):
        self.flag = folder / "full"
        self.environment = build("full_disk.c", folder) | {"FULL_DISK_FLAG": str(self.flag), "FULL_DISK_UNDER": under}

    def fill(self, limit: int = 4 << 20) -> None:
        """No file grows beyond so many bytes; the files of a server's catalogs are smaller than the default."""
        self.flag.write_text(str(limit))

    def make_room(self) -> None:
        self.flag.unlink()
