"""Foreign disk images to raw files, sparse, with their digest.

An image somebody else made is not trusted: a qcow2 or vmdk file can name other files of this
machine as its backing or data, and would show us their contents. So the format is told from the
bytes here, never probed by QEMU; references are looked for before any program opens the file;
and QEMU is told the format. What a raw file means to QEMU is never asked: it is copied.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeAlias

from netboot.errors import ImageError

Progress: TypeAlias = Callable[[int, str], None]  #: percent of the whole, what is being done

SECTOR = 512
_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
_QCOW2_REFERENCES = struct.Struct(">4xIQ")  # version, backing file offset
_QCOW2_DATA_FILE = 1 << 2
_PERCENT = re.compile(rb"\((\d+)(?:\.\d+)?/100%\)")


def sniff(file: BinaryIO) -> str:
    """QEMU's name of the format, by magic numbers alone; ``raw`` for whatever has none."""
    file.seek(0)
    head = file.read(8)
    if head.startswith(b"QFI\xfb"):
        return "qcow2"
    if head.startswith((b"KDMV", b"COWD", b"# Disk D")):
        return "vmdk"
    if head == b"vhdxfile":
        return "vhdx"
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - SECTOR))
    if head == b"conectix" or file.read(8) == b"conectix":
        return "vpc"
    return "raw"


def refuse_references(file: BinaryIO, kind: str, name: str) -> None:
    """ImageError when the image is not whole in itself."""
    file.seek(0)
    head = file.read(1 << 16)
    refers = False
    if kind == "qcow2" and len(head) >= 80:
        version, backing = _QCOW2_REFERENCES.unpack_from(head)
        features = int.from_bytes(head[72:80], "big") if version >= 3 else 0
        refers = bool(backing or features & _QCOW2_DATA_FILE)
    elif kind == "vmdk":
        # Only a sparse file with its own descriptor is whole: a text descriptor names extents,
        # and so does a sparse header of capacity 0 (QEMU, block/vmdk.c).
        whole = head.startswith(b"KDMV") and any(head[12:20])
        refers = not whole or b"parentFileNameHint" in head
    if refers:
        raise ImageError(
            f"{name}: refers to other files (backing file, data file or extents), which is not "
            f"accepted; make it whole with `qemu-img convert -O qcow2` where it comes from"
        )


def _info(path: Path, kind: str) -> int:
    """The virtual size; ImageError for what QEMU sees in it that we refuse."""
    command = ["qemu-img", "info", "-f", kind, "--output=json", str(path)]
    try:
        done = subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
        info = json.loads(done.stdout)
    except FileNotFoundError:
        raise ImageError("qemu-img is not installed: apt-get install qemu-utils") from None
    except subprocess.CalledProcessError as failure:
        reason = failure.stderr.decode(errors="replace").strip().splitlines()
        raise ImageError(f"{path}: {reason[-1] if reason else 'not readable'}") from failure
    if "backing-filename" in info or info.get("encrypted"):
        raise ImageError(f"{path}: has a backing file or is encrypted, which is not accepted")
    return int(info["virtual-size"])


def to_raw(source: Path, target: Path, progress: Progress) -> str:
    """Write ``source``, of any known format, to ``target``; the digest of the raw bytes."""
    source = source.absolute()
    try:
        with source.open("rb") as file:
            kind = sniff(file)
            refuse_references(file, kind, str(source))
            if kind == "raw":
                _room_for(target, file.seek(0, os.SEEK_END), source)
                return _copy(file, target, progress)
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ImageError(
                f"{target.parent}: {problem.strerror}: make room there, or choose another folder"
            ) from problem
        raise ImageError(f"{source}: {problem.strerror}") from problem
    _room_for(target, _info(source, kind), source)
    command = ["qemu-img", "convert", "-p", "-f", kind, "-O", "raw", str(source), str(target)]
    run_with_progress(command, lambda percent: progress(percent * 8 // 10, "converting"))
    return digest_of(target, lambda percent, text: progress(80 + percent // 5, text))


def _room_for(target: Path, size: int, source: Path) -> None:
    """An image cannot take more room than it has bytes; say so before the disk is full."""
    free = shutil.disk_usage(target.parent).free
    used = source.stat().st_blocks * SECTOR
    if min(size, used) > free:
        raise ImageError(
            f"{source}: needs about {min(size, used) >> 20} MiB below {target.parent}, "
            f"where {free >> 20} MiB are free"
        )


def run_with_progress(command: list[str], progress: Callable[[int], None]) -> None:
    """Run ``qemu-img -p``; it goes when we are interrupted, and its last words are the error."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        try:
            while block := os.read(process.stdout.fileno(), 4096):
                for found in _PERCENT.findall(block)[-1:]:
                    progress(int(found))
            words = process.stderr.read().decode(errors="replace").strip()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise ImageError(f"{command[0]} {command[1]} failed: {words.splitlines()[-1:]}")


def _blocks(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes | None]]:
    """A sparse file in order: (length, bytes), or None for bytes where there is a hole."""
    at = 0
    while at < size:
        try:
            data = min(os.lseek(file.fileno(), at, os.SEEK_DATA), size)
        except OSError:  # ENXIO: a hole up to the end
            data = size
        while at < data:
            length = min(_CHUNK, data - at)
            yield length, None
            at += length
        end = min(os.lseek(file.fileno(), at, os.SEEK_HOLE), size) if at < size else size
        while at < end:
            block = os.pread(file.fileno(), min(_CHUNK, end - at), at)
            if not block:
                raise ImageError("the file became shorter while it was read")
            yield len(block), block
            at += len(block)


def _copy(file: BinaryIO, target: Path, progress: Progress) -> str:
    """A sparse copy that is hashed on the way, filled up to a whole sector."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        raise ImageError(f"{file.name}: is empty")
    whole = size + -size % SECTOR
    hasher = hashlib.sha256()
    at = 0
    with target.open("r+b" if target.exists() else "wb") as out:
        out.truncate(0)
        out.truncate(whole)
        for length, block in _blocks(file, size):
            hasher.update(_ZEROS[:length] if block is None else block)
            if block is not None and block != _ZEROS[:length]:
                os.pwrite(out.fileno(), block, at)
            at += length
            progress(at * 100 // size, "copying")
    hasher.update(bytes(whole - size))
    return f"sha256:{hasher.hexdigest()}"


def digest_of(path: Path, progress: Progress) -> str:
    """``sha256:<hex>`` of a file's bytes."""
    hasher = hashlib.sha256()
    at = 0
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        for length, block in _blocks(file, size):
            hasher.update(_ZEROS[:length] if block is None else block)
            at += length
            progress(at * 100 // size, "computing the digest")
    return f"sha256:{hasher.hexdigest()}"
