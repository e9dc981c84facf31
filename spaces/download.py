"""Downloads the official data: resumable, verified, unpacked.

    python -m spaces.download nasbench101 --root ~/datasets

A transfer that breaks is continued, by itself or by the next call, from `<file>.part`. The checksum is compared with
the published one; where none is published it is printed and kept in `<file>.sha256` at the first download, and compared
from then on.
"""
from __future__ import annotations

import argparse
import gzip
import hashlib
import http.client
import os
import shutil
import ssl
import sys
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Callable

from spaces.base import InputError
from spaces.cache import atomic_write
from spaces.progress import byte_progress

CHUNK = 1 << 16  # bytes read at a time
ATTEMPTS = 5  # in a row that bring no new byte, before giving up
PAUSE = 1.0  # seconds before a broken transfer is continued; doubled with each attempt that brought nothing
TIMEOUT = 60.0  # seconds of silence that count as a broken connection
BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)
ASK_AGAIN = (408, 429)  # the answers 4xx that may be better next time


@dataclass(frozen=True)
class Resource:
    """One file to download.

    url       where it is
    file      its name below the root
    checksum  "algorithm:digest" as published, or None
    size      bytes as published, or None
    folder    what an archive is unpacked to, below the root; None for a plain file
    inside    the folder of the archive that becomes it; "" for all of the archive
    """

    url: str
    file: str
    checksum: str | None = None
    size: int | None = None
    folder: str | None = None
    inside: str = ""


RESOURCES = {
    "nasbench101": Resource("https://storage.googleapis.com/nasbench/nasbench_only108.tfrecord",
                            "nasbench_only108.tfrecord"),
    "nasbench101_full": Resource("https://storage.googleapis.com/nasbench/nasbench_full.tfrecord",
                                 "nasbench_full.tfrecord"),
    "nasbench301": Resource("https://ndownloader.figshare.com/files/24992018", "nasbench301_models_v1.0.zip",
                            folder="nasbench301_models_v1.0"),
    "cifar10": Resource("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "cifar-10-python.tar.gz",
                        checksum="md5:c58f30108f718f92721af3b95e74349a", size=170_498_071,
                        folder="cifar-10-batches-py", inside="cifar-10-batches-py"),
}


def download(resource: Resource, root: Path) -> Path:
    """Brings the resource below the root unless it is there; the path of the verified file or of the unpacked folder.

    InputError where the source does not answer or the bytes are not the expected ones; those are kept as `<file>.bad`.
    """
    file, folder = root / resource.file, root / (resource.folder or "")
    if resource.folder and folder.is_dir():
        print(f"{folder}: already complete")
        return folder
    present = file.is_file()
    arrived = file if present else file.with_name(f"{file.name}.part")
    if not present:
        root.mkdir(parents=True, exist_ok=True)
        _transfer(resource, arrived)
    try:
        _verify(arrived, resource, file)
    except InputError as error:
        bad = file.with_name(f"{file.name}.bad")
        os.replace(arrived, bad)
        raise InputError(f"{error}; it is now {bad.name}: run the command again") from None
    os.replace(arrived, file)
    if present:
        print(f"{file}: already complete")
    if resource.folder is None:
        return file
    _unpack(file, folder, resource.inside)
    return folder


# Transfer -------------------------------------------------------------------------------------------------------------

def _transfer(resource: Resource, part: Path) -> None:
    """Fills the partial file to the end, continuing after broken connections."""
    if urllib.parse.urlsplit(resource.url).scheme not in ("http", "https"):
        raise InputError(f"{resource.url!r} is no http or https address")
    failures = 0
    with byte_progress() as progress:
        task = progress.add_task(resource.file, total=resource.size)
        while True:
            before = _length(part)
            try:
                return _receive(resource, part, lambda done, total: progress.update(task, completed=done, total=total))
            except BROKEN as error:
                failures = 0 if _length(part) > before else failures + 1
                if failures == ATTEMPTS:
                    raise InputError(f"{resource.url}: {error}, {ATTEMPTS} times in a row: check the connection and "
                                     f"run the command again; it goes on after {_length(part):,} bytes") from None
                time.sleep(PAUSE * 2 ** failures)


def _receive(resource: Resource, part: Path, report: Callable[[int, int | None], None]) -> None:
    """One request for what the partial file lacks. One of BROKEN where another attempt may help."""
    url, done = resource.url, _length(part)
    headers = {"User-Agent": "gmae-nas"} | ({"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:  # the source ends where the partial file does, or before
                if error.headers.get("Content-Range") != f"bytes */{done}":
                    part.unlink()
                    raise ConnectionError("the partial file was longer than the source") from None
                return
            if error.code < 500 and error.code not in ASK_AGAIN:
                raise InputError(f"{url}: HTTP {error.code} {error.reason}: is the address still right? "
                                 f"--url names a mirror") from None
            raise
    with response:
        resumed = response.status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            part.unlink()
            raise ConnectionError("the server sent another part than the one asked for")
        done = done if resumed else 0
        length = response.headers.get("Content-Length")
        total = resource.size if length is None else done + int(length)
        if resource.size not in (None, total):
            raise InputError(f"{url}: {total:,} bytes instead of {resource.size:,}: it is not the official file")
        if total is not None and total - done > shutil.disk_usage(part.parent).free:
            raise InputError(f"{part.parent}: no room for {total - done:,} bytes: choose another --root")
        with open(part, "ab" if resumed else "wb") as file:
            while chunk := response.read1(CHUNK):
                file.write(chunk)
                done += len(chunk)
                report(done, total)
    if total is not None and done < total:
        raise ConnectionError(f"connection lost after {done:,} of {total:,} bytes")


def _length(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


# Verification ---------------------------------------------------------------------------------------------------------

def _verify(path: Path, resource: Resource, file: Path) -> None:
    """Compares the checksum of the bytes at path, which are or shall become `file`; records it where none is known."""
    recorded = file.with_name(f"{file.name}.sha256")  # as sha256sum writes and reads it
    known = resource.checksum
    if known is None and recorded.is_file():
        known = f"sha256:{recorded.read_text().split(' ')[0]}"
    algorithm = "sha256" if known is None else known.partition(":")[0]
    found = f"{algorithm}:{_digest(path, algorithm)}"
    if known is None:
        line = f"{found.partition(':')[2]}  {file.name}\n"
        atomic_write(recorded, lambda stream: stream.write(line.encode()))
        print(f"{file}: {found}, recorded in {recorded.name} because none is published")
    elif found != known:
        source = "published" if resource.checksum else f"recorded in {recorded.name}, which you may remove"
        raise InputError(f"{file}: {found} instead of {known} ({source}), so it is damaged or another version")


def _digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


# Archives -------------------------------------------------------------------------------------------------------------

def _unpack(archive: Path, folder: Path, inside: str) -> None:
    """Unpacks a zip or tar archive into a folder that appears only when it is complete."""
    scratch = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                _refuse_escapes(archive, opened.namelist())
                opened.extractall(scratch)
        else:
            with tarfile.open(archive) as opened:
                members = opened.getmembers()
                odd = [member.name for member in members if not (member.isfile() or member.isdir())]
                if odd:
                    raise InputError(f"{archive}: entry {odd[0]!r} is neither file nor folder: refused")
                _refuse_escapes(archive, [member.name for member in members])
                safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # absent from early Python 3.10
                opened.extractall(scratch, members, **safe)
        if not (scratch / inside).is_dir():
            raise InputError(f"{archive}: there is no folder {inside} in it: take it from another --url")
        os.replace(scratch / inside, folder)
    except DAMAGED as error:
        raise InputError(f"{archive}: damaged archive ({error}): remove it, and {archive.name}.sha256 where there is "
                         f"one, and run the command again") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _refuse_escapes(archive: Path, names: list[str]) -> None:
    """InputError where an entry would be written outside of the folder that the archive is unpacked to."""
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{archive}: entry {name!r} leads out of the folder: refused")


class OneLine(argparse.ArgumentParser):
    """A mistake on the command line is one line on stderr and exit code 2, without the usage."""

    def error(self, message: str):
        self.exit(2, f"error: {message}; see --help\n")


def main(argv: list[str] | None = None) -> int:
    parser = OneLine(prog="python -m spaces.download", description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=RESOURCES)
    parser.add_argument("--root", type=Path, default=Path("~/datasets"), help="where data lives (default: %(default)s)")
    parser.add_argument("--url", help="a mirror to take the file from; it is verified all the same")
    args = parser.parse_args(argv)
    resource = RESOURCES[args.name]
    try:
        print(download(replace(resource, url=args.url or resource.url), args.root.expanduser()))
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command continues where it stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
