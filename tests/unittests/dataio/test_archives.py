"""Unpacking, and refusing what would write elsewhere.

Authors
 * The iusp_plugin authors 2026
"""

import io
import stat
import tarfile
import zipfile

import pytest

from iusp_plugin.dataio.archives import marker_path, unpack_archive

FILES = {"audio-dev/train/a.wav": b"first", "audio-dev/b.wav": b"second"}


def _tar(path, members):
    """Write a tar file of (name, kind, content or link target)."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.linkname = content.decode()
                archive.addfile(info)
    return path


def _zip(path, members):
    """Write a zip file of (name, Unix mode, content)."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, mode, content in members:
            info = zipfile.ZipInfo(name)
            # The constructor would tidy some names up.
            info.filename = name
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return path


def _archive(folder, name):
    """An ordinary archive of FILES."""
    if name.endswith(".zip"):
        return _zip(folder / name, [(n, 0, c) for n, c in FILES.items()])
    members = [(n, tarfile.REGTYPE, c) for n, c in FILES.items()]
    members.insert(0, ("./audio-dev", tarfile.DIRTYPE, b""))
    return _tar(folder / name, members)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar", "a.zip"])
def test_files_arrive(tmp_path, name):
    """Every file in its place, nothing left over."""
    folder = tmp_path / "data"
    (folder / "audio-dev").mkdir(parents=True)
    (folder / "audio-dev" / "kept.wav").write_bytes(b"mine")
    unpack_archive(_archive(tmp_path, name), folder)
    for file, content in FILES.items():
        assert (folder / file).read_bytes() == content
    assert (folder / "audio-dev" / "kept.wav").read_bytes() == b"mine"
    names = {path.name for path in folder.iterdir()}
    assert names == {"audio-dev", f".{name}.unpacked"}


def test_once_for_one_archive(tmp_path):
    """A second call does nothing; a changed archive is unpacked again."""
    archive, folder = _archive(tmp_path, "a.zip"), tmp_path / "data"
    unpack_archive(archive, folder)
    target = folder / "audio-dev" / "b.wav"
    target.write_bytes(b"changed")
    unpack_archive(archive, folder)
    assert target.read_bytes() == b"changed"
    _zip(archive, [("audio-dev/b.wav", 0, b"a new release")])
    unpack_archive(archive, folder)
    assert target.read_bytes() == b"a new release"


@pytest.mark.parametrize(
    "name, kind, content, reason",
    [
        ("../out.txt", tarfile.REGTYPE, b"x", "lies outside the folder"),
        ("a/../../out.txt", tarfile.REGTYPE, b"x", "lies outside"),
        ("/tmp/out.txt", tarfile.REGTYPE, b"x", "lies outside"),
        ("..\\out.txt", tarfile.REGTYPE, b"x", "lies outside"),
        ("C:\\out.txt", tarfile.REGTYPE, b"x", "lies outside"),
        ("link", tarfile.SYMTYPE, b"/etc", "is a link or device"),
        ("link", tarfile.SYMTYPE, b"a", "is a link or device"),
        ("link", tarfile.LNKTYPE, b"good.txt", "is a link or device"),
        ("fifo", tarfile.FIFOTYPE, b"", "is a link or device"),
        ("null", tarfile.CHRTYPE, b"", "is a link or device"),
    ],
)
def test_unsafe_tar_member(tmp_path, name, kind, content, reason):
    """Named, and refused before the good file ahead of it is written."""
    members = [("good.txt", tarfile.REGTYPE, b"x"), (name, kind, content)]
    archive, folder = _tar(tmp_path / "a.tar.gz", members), tmp_path / "data"
    with pytest.raises(ValueError, match=reason) as raised:
        unpack_archive(archive, folder)
    assert repr(name) in str(raised.value)
    assert not list(folder.iterdir())
    assert {p.name for p in tmp_path.iterdir()} == {"a.tar.gz", "data"}


@pytest.mark.parametrize(
    "name, mode, reason",
    [
        ("../out.txt", 0, "lies outside"),
        ("/out.txt", 0, "lies outside"),
        ("link", stat.S_IFLNK | 0o777, "is a link or device"),
    ],
)
def test_unsafe_zip_member(tmp_path, name, mode, reason):
    """As with tar files."""
    members = [("good.txt", 0, b"x"), (name, mode, b"/etc")]
    archive, folder = _zip(tmp_path / "a.zip", members), tmp_path / "data"
    with pytest.raises(ValueError, match=reason):
        unpack_archive(archive, folder)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar", "a.zip"])
@pytest.mark.parametrize("kept", [0, 20, 0.6])
def test_damaged_archive(tmp_path, name, kept):
    """A truncated download leaves nothing behind."""
    archive, folder = _archive(tmp_path, name), tmp_path / "data"
    content = archive.read_bytes()
    # A tar file's last 9 kB are padding.
    length = round(kept * len(content.rstrip(b"\0"))) if kept < 1 else kept
    archive.write_bytes(content[:length])
    with pytest.raises(ValueError, match="no tar or zip archive, or is dam"):
        unpack_archive(archive, folder)
    assert not list(folder.iterdir())
    assert not marker_path(archive, folder).exists()


def test_absent_archive(tmp_path):
    """The path is named."""
    with pytest.raises(FileNotFoundError, match="a.zip does not exist"):
        unpack_archive(tmp_path / "a.zip", tmp_path)
