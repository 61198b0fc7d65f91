"""Downloads from a local server that drops, refuses and misbehaves.

Authors
 * The iusp_plugin authors 2026
"""

import errno
import hashlib
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from iusp_plugin.dataio import transfer
from iusp_plugin.dataio.download import LOG_NAME, fetch_release

CONTENT = bytes(range(256)) * 1024
MD5 = hashlib.md5(CONTENT).hexdigest()
NAME = "audio-dev.tar.gz"


class _Handler(BaseHTTPRequestHandler):
    """Serves ``server.content``; the server's fields say how badly."""

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        content, start = server.content, 0
        asked = self.headers.get("Range")
        if asked and server.with_range:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
            self.send_response(206)
            last = len(content) - 1
            said = f"bytes {start}-{last}/{len(content)}"
            self.send_header("Content-Range", said)
        else:
            self.send_response(200)
        body = content[start:]
        if server.with_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.drops:
            server.drops -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *args):
        """Tests print nothing."""


@pytest.fixture
def server():
    """A server on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.content, server.requests, server.statuses = CONTENT, [], []
    server.with_range, server.with_length, server.drops = True, True, 0
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def fetch(server, tmp_path):
    """Fetch from that server into tmp_path, without waiting."""
    port = server.server_address[1]

    def fetch(files=(NAME,), **options):
        url = f"http://127.0.0.1:{port}/records/{{record}}/{{name}}"
        options = {"backoff_s": 0.0, "retries": 2} | options
        return fetch_release(7, files, tmp_path, url, **options)

    return fetch


def _log(folder):
    return json.loads((folder / LOG_NAME).read_text())


def test_whole_file_and_log(fetch, server, tmp_path):
    """Size and MD5 are recorded where they were not known."""
    paths = fetch()
    assert paths == {NAME: tmp_path / NAME}
    assert paths[NAME].read_bytes() == CONTENT
    assert server.requests == [(f"/records/7/{NAME}", None)]
    entry = _log(tmp_path)[NAME]
    assert (entry["size"], entry["md5"]) == (len(CONTENT), MD5)
    assert entry["url"].endswith(f"/records/7/{NAME}")
    assert {p.name for p in tmp_path.iterdir()} == {NAME, LOG_NAME}


def test_dropped_connection_is_resumed(fetch, server, tmp_path):
    """Each time only the rest is asked for."""
    server.drops = 2
    files = [{"name": NAME, "size": len(CONTENT), "md5": MD5.upper()}]
    assert fetch(files)[NAME].read_bytes() == CONTENT
    half = len(CONTENT) // 2
    ranges = [asked for _, asked in server.requests]
    assert ranges == [None, f"bytes={half}-", f"bytes={half * 3 // 2}-"]


def test_dropped_connection_without_range(fetch, server):
    """A server that ignores the range sends all of it: start again."""
    server.drops, server.with_range = 1, False
    assert fetch()[NAME].read_bytes() == CONTENT
    assert [asked is None for _, asked in server.requests] == [True, False]


def test_always_dropping_without_range(fetch, server, tmp_path):
    """No new ground, so it ends; the part is kept."""
    server.drops, server.with_range = 100, False
    with pytest.raises(RuntimeError, match="could not be fetched.*run again"):
        fetch()
    # One attempt that gains ground, one without, and two more.
    assert len(server.requests) == 4
    assert not (tmp_path / NAME).exists()


def test_resumed_in_a_later_run(fetch, server, tmp_path):
    """What an interrupted run left is not fetched again."""
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1000])
    assert fetch()[NAME].read_bytes() == CONTENT
    assert server.requests[0][1] == "bytes=1000-"


def test_complete_part(fetch, server, tmp_path):
    """An interruption between the last byte and the renaming."""
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    assert fetch()[NAME].read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_part_longer_than_the_file(fetch, server, tmp_path):
    """It belongs to something else: begin anew."""
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT + b"more")
    assert fetch()[NAME].read_bytes() == CONTENT
    assert [asked is None for _, asked in server.requests] == [False, True]


def test_without_length_the_known_size_counts(fetch, server):
    """A drop is invisible in a reply without a length."""
    server.drops, server.with_length = 1, False
    files = [{"name": NAME, "size": len(CONTENT)}]
    assert fetch(files)[NAME].read_bytes() == CONTENT


def test_whole_files_are_not_fetched_again(fetch, server, tmp_path):
    """By the log, and by the MD5 after the log is lost."""
    files = [{"name": NAME, "md5": MD5}]
    fetch(files)
    fetch(files)
    (tmp_path / LOG_NAME).unlink()
    fetch(files)
    assert len(server.requests) == 1
    assert _log(tmp_path)[NAME]["md5"] == MD5


def test_file_put_there_by_hand(fetch, server, tmp_path):
    """Taken as it is where nothing is known of it, and recorded."""
    (tmp_path / NAME).write_bytes(b"by hand")
    fetch()
    assert not server.requests
    assert _log(tmp_path)[NAME]["size"] == 7


@pytest.mark.parametrize(
    "known, message",
    [
        ({"md5": "0" * 32}, f"has md5 {MD5}, expected 000"),
        ({"size": 5}, f"has size {len(CONTENT)}, expected 5"),
    ],
)
def test_wrong_transfer(fetch, tmp_path, known, message):
    """Removed, so that the next run does not resume it."""
    with pytest.raises(ValueError, match=f"http.*{NAME} {message}.*run again"):
        fetch([{"name": NAME, **known}])
    assert not list(tmp_path.iterdir())


def test_wrong_file_of_the_users(fetch, server, tmp_path):
    """Left alone: it may be all there is of something."""
    fetch()
    (tmp_path / NAME).write_bytes(b"touched")
    with pytest.raises(ValueError, match="has md5 .*Remove it to fetch it ag"):
        fetch([{"name": NAME, "md5": MD5}])
    assert (tmp_path / NAME).read_bytes() == b"touched"
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [404, 403, 410])
def test_refused(fetch, server, status):
    """Said at once, with the address and what to look at."""
    server.statuses = [status]
    with pytest.raises(
        RuntimeError,
        match=f"http.*/records/7/{NAME} answered {status}.*record number",
    ):
        fetch()
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_busy_server(fetch, server, status):
    """Asked again later."""
    server.statuses = [status, status]
    assert fetch()[NAME].read_bytes() == CONTENT
    server.statuses = [status] * 9
    with pytest.raises(RuntimeError, match=f"the server answered {status}"):
        fetch(["other.zip"])


def test_waits_double(fetch, server, monkeypatch):
    """Back-off without progress."""
    waits = []
    monkeypatch.setattr(transfer.time, "sleep", waits.append)
    server.statuses = [503] * 9
    with pytest.raises(RuntimeError):
        fetch(backoff_s=0.5, retries=3)
    assert waits == [0.5, 1.0, 2.0]


def test_no_server(tmp_path):
    """Port 9 of this machine discards, if anything listens at all."""
    with pytest.raises(RuntimeError, match="the connection dropped"):
        fetch_release(
            1, ["a"], tmp_path, "http://127.0.0.1:9/{name}", 1, 0.0, 1.0
        )


def test_disk_too_small(fetch, monkeypatch):
    """Known before the transfer, by the length."""
    usage = shutil.disk_usage(".")._replace(free=10)
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        RuntimeError, match=f"full .{len(CONTENT)} more bytes.*{NAME}.*Free"
    ):
        fetch()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_disk_error(fetch, monkeypatch, code):
    """A full disk is explained; another fault passes through."""

    def fail(*args):
        raise OSError(code, "fault")

    monkeypatch.setattr(transfer, "_append", fail)
    expected = RuntimeError if code == errno.ENOSPC else OSError
    with pytest.raises(expected, match="is full|fault"):
        fetch()


@pytest.mark.parametrize(
    "file, message",
    [
        ("../a", "has the name '../a'"),
        ("", "has the name ''"),
        ({"md5": MD5}, "has the name ''"),
        ({"name": "a", "md5sum": MD5}, "Key 'md5sum' .*mean 'md5'"),
        ({"name": "a", "md5": "12"}, "md5 of a='12' must be 32"),
        ({"name": "a", "md5": "z" * 32}, "must be 32 hexadecimal digits"),
        ({"name": "a", "size": -1}, "size of a=-1 must be a number of bytes"),
        ({"name": "a", "size": "5 MB"}, "size of a='5 MB' must be"),
    ],
)
def test_malformed_file_list(fetch, server, file, message):
    """Before anything is asked for, even of files ahead in the list."""
    with pytest.raises(ValueError, match=message):
        fetch([NAME, file])
    assert not server.requests


@pytest.mark.parametrize("options", [{"retries": -1}, {"backoff_s": -1.0}])
def test_bad_options(fetch, options):
    """Out of range."""
    with pytest.raises(ValueError, match="must be >= 0"):
        fetch(**options)


def test_damaged_log(fetch, tmp_path):
    """The remedy is named."""
    (tmp_path / LOG_NAME).write_text("{")
    with pytest.raises(ValueError, match=f"{LOG_NAME} is damaged.*Remove it"):
        fetch()
