"""A server with its data on a small disk, which a test can fill and make read-only.

The disk is a tmpfs in a mount namespace of the server's processes. It is invisible elsewhere, and
disappears with them.
"""

import contextlib
import errno
import shutil
import subprocess
from pathlib import Path

from faults.servers import Server
from faults.setting import Setting

_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


def is_possible() -> bool:
    """Whether users of this machine may create namespaces and mount in them."""
    if not (shutil.which("unshare") and shutil.which("nsenter")):
        return False
    command = [*_NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class SmallDisk:
    """A small disk, and the server on it."""

    def __init__(self, setting: Setting, *, options: str, folder: str) -> None:
        """Prepares the server, which creates the disk at its start.

        Args:
            setting: the setting with the folder.
            options: the mount options of the disk: "size=24m", "ro".
            folder: the folder of the server.
        """
        data_dir = setting.folder / folder / "data"
        data_dir.mkdir(parents=True)
        mount = f'mount -t tmpfs -o {options} tmpfs "$0" && exec "$@"'
        prefix = (*_NAMESPACE, "sh", "-c", mount, str(data_dir))
        self.server = Server(setting.folder / folder, setting.dataset, prefix=prefix)

    @property
    def root(self) -> Path:
        """The path of the disk from outside its namespace."""
        return Path(f"/proc/{self.server.process.pid}/root{self.server.data_dir}")

    def fill(self, *, left: int = 0) -> None:
        """Fills the disk except for this many bytes."""
        with (self.root / "filler").open("ab", buffering=0) as file:
            while (free := shutil.disk_usage(self.root).free - left) > 0:
                try:
                    file.write(bytes(min(free, 1 << 20)))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    break

    def empty(self) -> None:
        """Removes the file of `fill`."""
        (self.root / "filler").unlink()

    def make_read_only(self, name: str) -> None:
        """Makes a folder of the disk read-only."""
        path = self.server.data_dir / name
        self._inside("mount", "--bind", str(path), str(path))
        self._inside("mount", "-o", "remount,bind,ro", str(path))

    def make_writable(self, name: str) -> None:
        """Undoes `make_read_only`."""
        self._inside("umount", "--lazy", str(self.server.data_dir / name))

    def copy_to(self, folder: Path) -> Path:
        """Copies the files of the disk; the server must be idle."""
        with contextlib.suppress(FileExistsError):
            shutil.copytree(self.root, folder, ignore=shutil.ignore_patterns("filler"))
        return folder

    def _inside(self, *command: str) -> None:
        pid = str(self.server.process.pid)
        enter = ("nsenter", "--target", pid, "--user", "--mount", "--preserve-credentials")
        subprocess.run([*enter, *command], check=True, capture_output=True)
