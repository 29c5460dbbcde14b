"""A small file system of a test's own, whose power can be cut and whose space can run out. Only root can have one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.waiting import wait_for

# linux/fs.h and ext4.h: stop all writing at once, without writing down what was not written yet.
_SHUTDOWN = 0x8004587D
_WITHOUT_LOG_FLUSH = struct.pack("I", 2)


class CannotMount(Exception):
    """No file system can be mounted here; the message says why."""


def _command(*words: object) -> None:
    try:
        done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise CannotMount(f"{words[0]}: {error.strerror}") from None
    if done.returncode != 0:
        raise CannotMount(f"{' '.join(map(str, words))}: {done.stderr.strip()}")


def _is_gone_everywhere(path: Path) -> bool:
    """Mounts of other tests' own were copied while this one was there, and keep it: mounted again it would be the same
    file system, still without power. There it is unmounted too."""
    holders = [pid for pid in psutil.pids() if _has_mounted(pid, path)]
    for pid in holders:
        with contextlib.suppress(CannotMount):
            _command("nsenter", f"--mount=/proc/{pid}/ns/mnt", "umount", "--lazy", path)
    return not holders


def _has_mounted(pid: int, path: Path) -> bool:
    try:
        return f" {path} " in Path(f"/proc/{pid}/mountinfo").read_text()
    except OSError:
        return False  # it has ended


class Volume:
    """A file system in a file, mounted at `path`."""

    def __init__(self, folder: Path, mebibytes: int) -> None:
        self.image, self.path = folder / "image", folder / "volume"
        self.path.mkdir()
        self.is_mounted = False
        with self.image.open("wb") as image:
            image.truncate(mebibytes << 20)
        _command("mkfs.ext4", "-q", "-F", "-m", "0", self.image)

    def mount(self, options: str = "defaults") -> None:
        _command("mount", "-o", f"loop,{options}", self.image, self.path)
        self.is_mounted = True

    def cut_power(self) -> None:
        """From here on every write fails, and what the disk does not have it never gets."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, _WITHOUT_LOG_FLUSH)
        finally:
            os.close(fd)

    def unmount(self) -> None:
        """Those who had files open there must be gone; the kernel may still be closing what they had."""

        def is_done() -> bool:
            try:
                _command("umount", self.path)
            except CannotMount as reason:
                raise OSError(str(reason)) from None
            return True

        wait_for(is_done)
        self.is_mounted = False
        wait_for(lambda: _is_gone_everywhere(self.path))

    def remount(self, options: str) -> None:
        _command("mount", "-o", f"remount,{options}", self.path)


@contextlib.contextmanager
def new_volume(mebibytes: int) -> Iterator[Volume]:
    """A volume, not yet mounted; nothing is left of it afterwards. `CannotMount` where there can be none."""
    if os.geteuid() != 0:
        raise CannotMount("only root may mount a file system")
    with tempfile.TemporaryDirectory(prefix="dlv", dir="/tmp") as folder:
        volume = Volume(Path(folder), mebibytes)
        volume.mount()
        volume.unmount()
        try:
            yield volume
        finally:
            if volume.is_mounted:
                with contextlib.suppress(CannotMount):
                    _command("umount", "-l", volume.path)


@contextlib.contextmanager
def small_disk(mebibytes: int) -> Iterator[Path]:
    """A folder that takes so many MiB and no more: a volume, or where no image can be mounted, a piece of memory."""
    try:
        with new_volume(mebibytes) as volume:
            volume.mount()
            yield volume.path
            return
    except CannotMount:
        if os.geteuid() != 0:
            raise
    with tempfile.TemporaryDirectory(prefix="dlv", dir="/tmp") as folder:
        _command("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", folder)
        try:
            yield Path(folder)
        finally:
            _command("umount", "-l", folder)
