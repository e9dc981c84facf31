"""Download, verify and unpack the official data.

    python -m spaces.download nasbench101 --root ~/datasets

A broken transfer is continued from `<file>.part`, automatically or by the next call. Before a file is kept,
it is looked at: a web page, a file that is too small, TFRecords or an archive that do not open are refused.
The checksum is compared with the published one. If none is published, that of the first file that passed is
printed and kept in `<file>.sha256`, and compared from then on.
"""
from __future__ import annotations

import argparse
import contextlib
import gzip
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from runtime.errors import InputError, main_guard
from runtime.files import path_of, sha256_of, write_text
from runtime.locks import exclusive
from runtime.log import byte_progress
from runtime.settings import Parser
from spaces.labels.tfrecord import need_whole_records

CHUNK = 1 << 16  # bytes read at a time
ATTEMPTS = 5  # attempts in a row without a new byte, before giving up
PAUSE = 1.0  # seconds before a broken transfer is continued; doubled with each attempt without a new byte
TIMEOUT = 60.0  # seconds of silence that count as a broken connection
BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)
ASK_AGAIN = (408, 429)  # 4xx answers after which another attempt may succeed


@dataclass(frozen=True)
class Resource:
    """One file to download.

    url       its address
    file      its name below the root
    checksum  "algorithm:digest" as published, or None
    size      bytes as published, or None
    least     bytes, at least, of a file that can be the right one
    most      bytes, at most, of an archive's content
    folder    target of an archive, below the root; None for a plain file
    inside    the folder of the archive that becomes `folder`; "" for all of the archive
    """

    url: str
    file: str
    checksum: str | None = None
    size: int | None = None
    least: int = 1
    most: int = 2**36
    folder: str | None = None
    inside: str = ""


RESOURCES = {
    "nasbench101": Resource("https://storage.googleapis.com/nasbench/nasbench_only108.tfrecord",
                            "nasbench_only108.tfrecord", least=10**8),
    "nasbench101_full": Resource("https://storage.googleapis.com/nasbench/nasbench_full.tfrecord",
                                 "nasbench_full.tfrecord", least=10**9),
    "nasbench301": Resource("https://ndownloader.figshare.com/files/24992018", "nasbench301_models_v1.0.zip",
                            least=10**7, folder="nasbench301_models_v1.0"),
    "cifar10": Resource("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "cifar-10-python.tar.gz",
                        checksum="md5:c58f30108f718f92721af3b95e74349a", size=170_498_071,
                        folder="cifar-10-batches-py", inside="cifar-10-batches-py"),
}


def download(resource: Resource, root: Path) -> Path:
    """Downloads the resource unless it is there; returns the path of the verified file or unpacked folder.

    Raises InputError if the source does not answer, or if the bytes are not the expected ones; those are kept
    as `<file>.bad`.
    """
    file, folder = root / resource.file, root / (resource.folder or "")
    if resource.folder and folder.is_dir():
        print(f"{folder}: already complete")
        return folder
    with exclusive(root, "--root", name=resource.file):
        present = file.is_file()
        arrived = file if present else file.with_name(f"{file.name}.part")
        if not present:
            _transfer(resource, arrived)
        try:
            _recognise(arrived, resource)
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
        _unpack(file, folder, resource)
        return folder


# Transfer ---------------------------------------------------------------------------------------------------

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
                return _receive(
                    resource, part, lambda done, total: progress.update(task, completed=done, total=total))
            except BROKEN as error:
                failures = 0 if _length(part) > before else failures + 1
                if failures == ATTEMPTS:
                    raise InputError(
                        f"{resource.url}: {error}, {ATTEMPTS} times in a row: check the connection and "
                        f"run the command again; it goes on after {_length(part):,} bytes") from None
                time.sleep(PAUSE * 2**failures)


def _receive(resource: Resource, part: Path, report: Callable[[int, int | None], None]) -> None:
    """Requests the missing part of the file once; raises one of BROKEN if another attempt may help."""
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
                                 "--url names a mirror") from None
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
            raise InputError(
                f"{url}: {total:,} bytes instead of {resource.size:,}: it is not the official file")
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


# Recognition ------------------------------------------------------------------------------------------------

def _recognise(path: Path, resource: Resource) -> None:
    """Raises InputError unless a file is what its name says, as far as a look can tell."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(512)
    if head.lstrip()[:1] == b"<":
        raise InputError(f"{resource.url}: gave a web page of {size:,} bytes instead of {resource.file}: is "
                         "the address still right? --url names a mirror")
    if size < resource.least:
        raise InputError(f"{resource.url}: gave {size:,} bytes, and {resource.file} has {resource.least:,} "
                         "at least: --url names a mirror")
    if resource.file.endswith(".tfrecord"):
        need_whole_records(path)
    elif resource.folder:
        with opened(path) as (names, total):
            if total > resource.most:
                raise InputError(f"{path}: would unfold to {total:,} bytes: refused")
            inside = map(PurePosixPath, names)
            if resource.inside and not any(name.is_relative_to(resource.inside) for name in inside):
                raise InputError(f"{path}: there is no folder {resource.inside} in it: take it from another "
                                 "--url")


@contextlib.contextmanager
def opened(archive: Path) -> Iterator[tuple[list[str], int]]:
    """Yields the names of the files in a zip or tar archive, and their bytes; InputError if it is none."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                entries = file.infolist()
                yield [entry.filename for entry in entries], sum(entry.file_size for entry in entries)
        else:
            with tarfile.open(archive) as file:
                members = file.getmembers()
                yield [member.name for member in members], sum(member.size for member in members)
    except DAMAGED as error:
        raise InputError(f"{archive}: damaged archive ({error!s:.60})") from None


# Verification -----------------------------------------------------------------------------------------------

def _verify(path: Path, resource: Resource, file: Path) -> None:
    """Compares the checksum of the bytes at path, which are or will become `file`; records it if unknown."""
    recorded = file.with_name(f"{file.name}.sha256")  # as sha256sum writes and reads it
    known = resource.checksum
    if known is None and recorded.is_file():
        known = f"sha256:{recorded.read_text().split(' ')[0]}"
    algorithm = "sha256" if known is None else known.partition(":")[0]
    found = f"{algorithm}:{sha256_of(path, algorithm)}"
    if known is None:
        line = f"{found.partition(':')[2]}  {file.name}\n"
        write_text(recorded, line)
        print(f"{file}: {found}, recorded in {recorded.name} because none is published")
    elif found != known:
        source = "published" if resource.checksum else f"recorded in {recorded.name}, which you may remove"
        raise InputError(
            f"{file.name}: {found:.40} instead of {known:.40} ({source}): it is damaged or another version")


# Archives ---------------------------------------------------------------------------------------------------

def _unpack(archive: Path, folder: Path, resource: Resource) -> None:
    """Unpacks a zip or tar archive into a folder that appears only when it is complete."""
    inside = resource.inside
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
                safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # not in early 3.10
                opened.extractall(scratch, members, **safe)
        if not (scratch / inside).is_dir():
            raise InputError(f"{archive}: there is no folder {inside} in it: take it from another --url")
        os.replace(scratch / inside, folder)
    except DAMAGED as error:
        raise InputError(f"{archive}: damaged archive ({error}): remove it, and {archive.name}.sha256 if "
                         "there is one, and run the command again") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _refuse_escapes(archive: Path, names: list[str]) -> None:
    """Raises InputError if an entry would be written outside of the folder that is unpacked to."""
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{archive}: entry {name!r} leads out of the folder: refused")


def main(argv: list[str] | None = None) -> None:
    parser = Parser(prog="python -m spaces.download", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RESOURCES)
    parser.add_argument(
        "--root", type=Path, default=Path("~/datasets"), help="folder of the data (default: %(default)s)")
    parser.add_argument("--url", help="mirror to take the file from, which is verified all the same")
    args = parser.parse_args(argv)
    resource = RESOURCES[args.name]
    try:
        print(download(replace(resource, url=args.url or resource.url), path_of(args.root)))
    except KeyboardInterrupt:
        print("interrupted: the same command continues where it stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main_guard(main)
