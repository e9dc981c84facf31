"""spaces/download.py against a loopback server: resume, verification, retries, unpacking, and the command."""
from __future__ import annotations

import hashlib
import http.server
import io
import re
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
from dataclasses import replace
from functools import partial

import pytest
from conftest import ROOT

from runtime.errors import InputError
from spaces import download
from spaces.download import RESOURCES, Resource
from spaces.labels.tfrecord import masked_crc, need_whole_records

CONTENT = bytes(range(256)) * 2000  # 512,000 bytes
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves server.files; status: answers to give first; drops: how many break off half-way; ranges: obey
    Range."""

    def do_GET(self):
        self.server.requests.append(self.headers.get("Range"))
        if self.server.status:
            return self.send_error(self.server.status.pop(0))
        if self.path not in self.server.files:
            return self.send_error(404)
        content, start = self.server.files[self.path], 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and self.server.ranges:
            start = int(asked[1])
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.drops:
            self.server.drops -= 1
            body = body[:len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.requests, server.status = {"/data.bin": CONTENT}, [], []
        server.ranges, server.drops = True, 0
        server.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def resource(server) -> Resource:
    return Resource(f"{server.address}/data.bin", "data.bin", MD5, len(CONTENT))


def test_a_fresh_download_is_whole_and_leaves_nothing_else(resource, tmp_path):
    assert download.download(resource, tmp_path / "new") == tmp_path / "new" / "data.bin"
    assert (tmp_path / "new" / "data.bin").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["data.bin"]


def test_a_partial_file_is_continued_where_it_ends(server, resource, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:1000])
    download.download(resource, tmp_path)
    assert server.requests == ["bytes=1000-"]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_server_without_ranges_restarts_the_file(server, resource, tmp_path):
    server.ranges = False
    (tmp_path / "data.bin.part").write_bytes(b"x" * 1000)
    download.download(resource, tmp_path)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_partial_file_that_is_complete_is_only_verified(server, resource, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    download.download(resource, tmp_path)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_partial_file_longer_than_the_source_is_dropped(server, resource, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT + b"more")
    download.download(resource, tmp_path)
    assert server.requests == [f"bytes={len(CONTENT) + 4}-", None]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_dropped_connections_are_continued(server, resource, tmp_path):
    server.drops = 8  # more than ATTEMPTS, but each brings something
    download.download(resource, tmp_path)
    assert len(server.requests) == 9 and server.requests[1] == f"bytes={len(CONTENT) // 2}-"
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(server, resource, tmp_path):
    server.status = [503, 429]
    download.download(resource, tmp_path)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_giving_up_keeps_what_there_is(server, resource, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:1000])
    server.status = [503] * download.ATTEMPTS
    with pytest.raises(InputError, match="5 times in a row.*goes on after 1,000 bytes"):
        download.download(resource, tmp_path)
    assert (tmp_path / "data.bin.part").read_bytes() == CONTENT[:1000]


def test_a_wrong_checksum_puts_the_file_aside(server, resource, tmp_path):
    server.files["/data.bin"] = CONTENT[::-1]
    with pytest.raises(InputError, match=f"instead of {MD5} .published.*now data.bin.bad"):
        download.download(resource, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["data.bin.bad"]
    server.files["/data.bin"] = CONTENT
    assert download.download(resource, tmp_path).read_bytes() == CONTENT


def test_a_wrong_size_is_refused_before_the_transfer(server, resource, tmp_path):
    with pytest.raises(InputError, match="512,000 bytes instead of 999"):
        download.download(replace(resource, size=999), tmp_path)


def test_an_unknown_checksum_is_printed_recorded_and_compared_later(resource, tmp_path, capsys):
    unknown, digest = replace(resource, checksum=None), hashlib.sha256(CONTENT).hexdigest()
    file = download.download(unknown, tmp_path)
    assert digest in capsys.readouterr().out
    assert (tmp_path / "data.bin.sha256").read_text() == f"{digest}  data.bin\n"
    file.write_bytes(CONTENT[:-1])
    with pytest.raises(InputError, match="recorded in data.bin.sha256, which you may"):
        download.download(unknown, tmp_path)


def test_a_second_call_transfers_nothing(server, resource, tmp_path, capsys):
    download.download(resource, tmp_path)
    server.requests.clear()
    download.download(resource, tmp_path)
    assert server.requests == [] and "already complete" in capsys.readouterr().out


def test_no_other_scheme_is_opened(tmp_path):
    with pytest.raises(InputError, match="no http or https address"):
        download.download(Resource("file:///etc/hostname", "x"), tmp_path)


# Archives ---------------------------------------------------------------------------------------------------

def zipped(**entries: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def unpack(server, tmp_path, content: bytes, name: str, **fields):
    server.files[f"/{name}"] = content
    return download.download(Resource(f"{server.address}/{name}", name, folder="unpacked", **fields),
                             tmp_path)


def test_a_tar_archive_becomes_a_folder(server, tmp_path):
    content = tarred((tarfile.TarInfo("batches/one"), b"1"), (tarfile.TarInfo("batches/two"), b"2"))
    folder = unpack(server, tmp_path, content, "a.tar.gz", inside="batches")
    assert (folder / "two").read_bytes() == b"2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "a.tar.gz.sha256", "unpacked"]


def test_a_zip_archive_becomes_a_folder_once(server, tmp_path):
    folder = unpack(server, tmp_path, zipped(**{"models/xgb/1": b"1"}), "a.zip")
    assert (folder / "models" / "xgb" / "1").read_bytes() == b"1"
    server.requests.clear()
    assert unpack(server, tmp_path, b"", "a.zip") == folder and server.requests == []


def link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@pytest.mark.parametrize("name, content, message", [
    ("a.zip", zipped(**{"../outside": b"x"}), "leads out of the folder"),
    ("a.zip", zipped(**{"/outside": b"x"}), "leads out of the folder"),
    ("a.zip", zipped(**{"..\\outside": b"x"}), "leads out of the folder"),
    ("a.tar.gz", tarred((tarfile.TarInfo("ok/../../outside"), b"x")), "leads out of the folder"),
    ("a.tar.gz", tarred((link("inside", "../outside"), b"")), "neither file nor folder"),
    ("a.tar.gz", tarred((tarfile.TarInfo("one"), CONTENT))[:-500], "damaged archive"),
    ("a.zip", b"no archive", "damaged archive"),
], ids=["zip up", "zip root", "zip backslash", "tar up", "tar link", "tar cut", "no zip"])  # not bytes
def test_a_hostile_or_damaged_archive_leaves_no_folder(server, tmp_path, name, content, message):
    root = tmp_path / "root"
    with pytest.raises(InputError, match=message):
        unpack(server, root, content, name)
    left = {path.name for path in root.iterdir()}
    assert left in ({name, f"{name}.sha256"}, {f"{name}.bad"})  # it opened, or it was never kept
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_an_archive_without_the_folder_is_refused(server, tmp_path):
    with pytest.raises(InputError, match="no folder batches"):
        unpack(server, tmp_path, zipped(other=b"1"), "a.zip", inside="batches")


# What is no such file ---------------------------------------------------------------------------------------

def records(*data: bytes) -> bytes:
    """TFRecords of the data."""
    pieces = []
    for content in data:
        length = struct.pack("<Q", len(content))
        pieces += [length, struct.pack("<I", masked_crc(length)), content,
                   struct.pack("<I", masked_crc(content))]
    return b"".join(pieces)


WHOLE = records(*(bytes([i]) * 50 for i in range(200)))


@pytest.mark.parametrize("content, message", [
    (b"\n<!DOCTYPE html><html>not here</html>", "gave a web page of 37 bytes instead of it.tfrecord"),
    (b"", "gave 0 bytes, and it.tfrecord has 100 at least"), (b"x" * 99, "99 bytes"),
    (b"x" * 5000, "the length of the record disagrees"), (WHOLE[:-7], "cut off"),
    (WHOLE[:-1] + b"x", "the record disagrees with its checksum"),
], ids=["page", "empty", "small", "other", "cut", "flipped"])
@pytest.mark.parametrize("looked_at", [1000, 5])
def test_what_is_no_such_file_is_not_kept_and_teaches_no_checksum(
        server, tmp_path, monkeypatch, content, message, looked_at):
    monkeypatch.setattr(download, "need_whole_records", partial(need_whole_records, looked_at=looked_at))
    resource = Resource(f"{server.address}/data.bin", "it.tfrecord", least=100)
    server.files["/data.bin"] = content
    with pytest.raises(InputError, match=message):
        download.download(resource, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["it.tfrecord.bad"]
    server.files["/data.bin"] = WHOLE
    assert download.download(resource, tmp_path).read_bytes() == WHOLE


def test_an_archive_that_unfolds_too_far_is_refused(server, tmp_path):
    server.files["/a.zip"] = zipped(**{"in/x": b"\0" * 10**6})
    resource = Resource(f"{server.address}/a.zip", "a.zip", folder="a", inside="in", most=10**5)
    with pytest.raises(InputError, match="would unfold to 1,000,000 bytes"):
        download.download(resource, tmp_path)
    assert not (tmp_path / "a").exists()


# The command ------------------------------------------------------------------------------------------------

def test_the_command_takes_a_mirror(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(
        download.RESOURCES, "nasbench101", replace(download.RESOURCES["nasbench101"], least=1))
    server.files["/data.bin"] = whole = records(b"one", b"two")
    download.main(["nasbench101", "--root", str(tmp_path), "--url", f"{server.address}/data.bin"])
    assert (tmp_path / "nasbench_only108.tfrecord").read_bytes() == whole
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "nasbench_only108.tfrecord")


def test_a_missing_file_is_refused(server, tmp_path):
    with pytest.raises(InputError, match="/gone: HTTP 404 Not Found") as error:
        download.main(["nasbench101", "--root", str(tmp_path), "--url", f"{server.address}/gone"])
    assert "\n" not in str(error.value)


def test_a_missing_file_is_one_line_and_exit_code_2(server, tmp_path):
    command = [sys.executable, "-m", "spaces.download", "nasbench101", "--root", str(tmp_path)]
    end = subprocess.run([*command, "--url", f"{server.address}/gone"], cwd=ROOT, check=False,
                         capture_output=True, text=True)
    assert end.returncode == 2 and end.stdout == ""
    assert re.fullmatch("error: .*/gone: HTTP 404.*\n", end.stderr)


@pytest.mark.parametrize("flags", [["mnist"], ["nasbench101", "--rot", "x"], []], ids=str)
def test_an_unknown_name_or_flag_is_refused(flags):
    with pytest.raises(InputError, match="see --help"):
        download.main(flags)


def test_an_interrupted_transfer_says_how_to_go_on(monkeypatch, tmp_path, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "download", interrupt)
    with pytest.raises(SystemExit) as end:
        download.main(["nasbench101", "--root", str(tmp_path)])
    assert end.value.code == 130 and "the same command continues" in capsys.readouterr().err


def test_the_official_addresses():
    assert {name: entry.url for name, entry in RESOURCES.items()} == {
        "nasbench101": "https://storage.googleapis.com/nasbench/nasbench_only108.tfrecord",
        "nasbench101_full": "https://storage.googleapis.com/nasbench/nasbench_full.tfrecord",
        "nasbench301": "https://ndownloader.figshare.com/files/24992018",
        "cifar10": "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"}
