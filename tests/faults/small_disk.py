"""A server whose data is on a small disk of its own, which can be filled and made read-only.

The disk is a tmpfs in a mount namespace that only the server's processes are
in, so nothing of it is seen elsewhere, and it is gone with them.
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
    """Whether this machine lets its users have namespaces and mount in them."""
    if not (shutil.which("unshare") and shutil.which("nsenter")):
        return False
    command = [*_NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class SmallDisk:
    """The disk of a server that runs on it."""

    def __init__(self, setting: Setting, *, options: str, folder: str) -> None:
        """Makes the server, which makes the disk when it starts.

        Args:
            setting: whose folder it is in.
            options: of the disk, as `mount` takes them: "size=24m", "ro".
            folder: of the server.
        """
        data_dir = setting.folder / folder / "data"
        data_dir.mkdir(parents=True)
        mount = f'mount -t tmpfs -o {options} tmpfs "$0" && exec "$@"'
        prefix = (*_NAMESPACE, "sh", "-c", mount, str(data_dir))
        self.server = Server(setting.folder / folder, setting.dataset, prefix=prefix)

    @property
    def root(self) -> Path:
        """The disk, as it is seen from outside its namespace."""
        return Path(f"/proc/{self.server.process.pid}/root{self.server.data_dir}")

    def fill(self, *, left: int = 0) -> None:
        """Fills the disk but for so many bytes."""
        with (self.root / "filler").open("ab", buffering=0) as file:
            while (free := shutil.disk_usage(self.root).free - left) > 0:
                try:
                    file.write(bytes(min(free, 1 << 20)))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    break

    def empty(self) -> None:
        """Takes away what `fill` wrote."""
        (self.root / "filler").unlink()

    def make_read_only(self, name: str) -> None:
        """Makes a folder of the disk one that nothing can be written to."""
        path = self.server.data_dir / name
        self._inside("mount", "--bind", str(path), str(path))
        self._inside("mount", "-o", "remount,bind,ro", str(path))

    def make_writable(self, name: str) -> None:
        """Undoes `make_read_only`."""
        self._inside("umount", "--lazy", str(self.server.data_dir / name))

    def copy_to(self, folder: Path) -> Path:
        """A copy of what is on it, which outlives it; the server must be at rest."""
        with contextlib.suppress(FileExistsError):
            shutil.copytree(self.root, folder, ignore=shutil.ignore_patterns("filler"))
        return folder

    def _inside(self, *command: str) -> None:
        pid = str(self.server.process.pid)
        enter = ("nsenter", "--target", pid, "--user", "--mount", "--preserve-credentials")
        subprocess.run([*enter, *command], check=True, capture_output=True)
