"""Arrays by clip id, written once in shards and read from a memory map.

    <folder>/identity.json         what the records were made from
    <folder>/shard-00000.safetensors, ...   the records of so many clips each
    <folder>/index.json            clip ids, sizes of the shards; written last

A record is a few named arrays; their first axis may differ from clip to clip.
A shard is complete or absent and carries a checksum, so that work which was
interrupted goes on where it stopped, and a torn file is found and made again.

Authors
 * The iusp_plugin authors 2026
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from iusp_plugin.checks import differences, near_names
from iusp_plugin.files import replacing

Array = npt.NDArray[Any]
Record = Mapping[str, Array]

IDENTITY = "identity.json"
INDEX = "index.json"
SHARD_CLIPS = 256


def _checksum(clips: str, tensors: Mapping[str, Array]) -> str:
    """SHA-256 of the clips and of the arrays with names, dtypes and shapes."""
    digest = hashlib.sha256(clips.encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(array.data)
    return digest.hexdigest()


def _read_json(path: Path) -> Any:
    """Content of a file that this module wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def _write_json(path: Path, content: Any) -> None:
    """Write it so that the file is complete or absent."""
    with replacing(path) as part:
        part.write_text(json.dumps(content) + "\n", encoding="utf-8")


class _Shard:
    """One open shard; its checksum is verified when it is opened."""

    def __init__(self, path: Path):
        with safe_open(path, framework="np") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            meta = file.metadata() or {}
            if meta.get("sha256") != _checksum(meta["clips"], tensors):
                raise ValueError("its checksum does not fit its content")
            self.clips: list[str] = json.loads(meta["clips"])
        self._first = {
            name.partition(":")[0]: array
            for name, array in tensors.items()
            if name.endswith(":first")
        }
        self._empty = {n: tensors[n][:0].copy() for n in self._first}
        del tensors
        # The context above unmaps; this one stays for the slices.
        self._file = safe_open(path, framework="np")
        self._fields = {n: self._file.get_slice(n) for n in self._first}

    def read(self, row: int) -> dict[str, Array]:
        """A copy of one record."""
        record = {}
        for name, field in self._fields.items():
            start, end = self._first[name][row : row + 2].tolist()
            # safetensors slices nothing that is empty at its end.
            empty = start == end
            record[name] = (
                self._empty[name].copy() if empty else field[start:end]
            )
        return record


_DAMAGE = (OSError, ValueError, KeyError, TypeError, SafetensorError)


def _shard_path(folder: Path, number: int) -> Path:
    """File of one shard."""
    return folder / f"shard-{number:05d}.safetensors"


class ShardWriter:
    """Writes records in shards; several processes may each write some.

    Arguments
    ---------
    folder : str or Path
        Made if needed.
    identity : mapping
        What the records are made from, of JSON types.
    clips : sequence of str
        Distinct ids, in the order of the records.
    shard_clips : int
        Clips a shard.

    Raises
    ------
    ValueError
        If the folder holds records of another identity; names what differs.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> writer = ShardWriter(folder, {"made from": "ones"}, ["a", "b"])
    >>> writer.missing(), writer.finished()
    ([0], False)
    >>> ones = np.ones(3, np.float32)
    >>> writer.write(0, [{"x": ones}, {"x": ones[:1]}])
    >>> writer.finish()
    >>> ShardStore(folder)["b"]
    {'x': array([1.], dtype=float32)}
    """

    def __init__(
        self,
        folder: str | Path,
        identity: Mapping[str, Any],
        clips: Sequence[str],
        shard_clips: int = SHARD_CLIPS,
    ):
        self.folder = Path(folder)
        self.identity = json.loads(json.dumps(identity))
        self.clips = list(clips)
        self.shard_clips = shard_clips
        self.n_shards = -(-len(self.clips) // shard_clips)
        path = self.folder / IDENTITY
        if path.is_file():
            check_identity(self.folder, self.identity)
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write_json(path, self.identity)

    def of(self, number: int) -> list[str]:
        """Clips of a shard."""
        start = number * self.shard_clips
        return self.clips[start : start + self.shard_clips]

    def missing(self, rank: int = 0, world_size: int = 1) -> list[int]:
        """Shards that a process has to make: absent, torn or of other clips.

        Arguments
        ---------
        rank, world_size : int
            This process among how many.

        Returns
        -------
        list of int
            Numbers, ascending.
        """
        share = range(rank, self.n_shards, world_size)
        return [number for number in share if not self._is_whole(number)]

    def _is_whole(self, number: int) -> bool:
        """Whether a shard is there, undamaged, with the right clips."""
        try:
            return _Shard(_shard_path(self.folder, number)).clips == self.of(
                number
            )
        except _DAMAGE:
            return False

    def write(self, number: int, records: Sequence[Record]) -> None:
        """Write one shard.

        Arguments
        ---------
        number : int
            Which one.
        records : sequence of mapping
            One a clip of ``of(number)``, all with the same names, dtypes and
            shapes but for the first axis.
        """
        tensors: dict[str, Array] = {}
        for name in records[0]:
            arrays = [np.asarray(record[name]) for record in records]
            counts = [len(array) for array in arrays]
            tensors[name] = np.concatenate(arrays)
            tensors[f"{name}:first"] = np.cumsum([0, *counts], dtype=np.int64)
        clips = json.dumps(self.of(number))
        metadata = {"clips": clips, "sha256": _checksum(clips, tensors)}
        with replacing(_shard_path(self.folder, number)) as part:
            part.write_bytes(save(tensors, metadata))

    def finished(self) -> bool:
        """Whether the index has been written."""
        return (self.folder / INDEX).is_file()

    def finish(self) -> None:
        """Write the index: from now on the store can be read.

        Raises
        ------
        RuntimeError
            If a shard has not been written.
        """
        sizes = []
        for number in range(self.n_shards):
            path = _shard_path(self.folder, number)
            if not path.is_file():
                raise RuntimeError(f"{path} has not been written yet.")
            sizes.append(path.stat().st_size)
        content = {
            "shard_clips": self.shard_clips,
            "bytes": sizes,
            "clips": self.clips,
        }
        _write_json(self.folder / INDEX, content)


def check_identity(folder: Path, identity: Mapping[str, Any]) -> None:
    """Raise if the records of a folder were made from something else.

    Arguments
    ---------
    folder : Path
        Folder of a store.
    identity : mapping
        What it should have been made from.

    Raises
    ------
    ValueError
        Names each entry that differs.
    """
    try:
        known = _read_json(folder / IDENTITY)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} is damaged: {error}. Delete the folder."
        ) from error
    lines = differences(known, json.loads(json.dumps(identity)))
    if lines:
        raise ValueError(
            f"{folder} was made from something else:\n" + "\n".join(lines)
        )


class ShardStore(Mapping[str, dict[str, Array]]):
    """Records by clip id.

    Opening reads the index alone; a shard is mapped, and its checksum
    verified, when the first of its clips is asked for. May be passed to the
    workers of a data loader.

    Arguments
    ---------
    folder : str or Path
        A finished store.

    Raises
    ------
    ValueError
        If it is not finished, or a shard is missing or has another size.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not (self.folder / INDEX).is_file():
            raise ValueError(
                f"{self.folder} is not finished; start again what makes it: it "
                "goes on where it stopped."
            )
        try:
            index = _read_json(self.folder / INDEX)
            self._shard_clips: int = index["shard_clips"]
            self._row = {clip: i for i, clip in enumerate(index["clips"])}
            for number, wanted in enumerate(index["bytes"]):
                path = _shard_path(self.folder, number)
                size = path.stat().st_size
                if size != wanted:
                    raise ValueError(
                        f"{path.name} has {size} bytes instead of {wanted}"
                    )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(error) from error
        self._open: dict[int, _Shard] = {}

    def _damaged(self, error: Exception) -> ValueError:
        """What to raise where something does not fit."""
        return ValueError(
            f"{self.folder} is damaged: {error}. Delete its {INDEX} and start "
            "again what makes it: whole shards are kept."
        )

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the records were made from."""
        return _read_json(self.folder / IDENTITY)

    def __len__(self) -> int:
        return len(self._row)

    def __iter__(self):
        return iter(self._row)

    def __contains__(self, clip_id: object) -> bool:
        return clip_id in self._row

    def __getitem__(self, clip_id: str) -> dict[str, Array]:
        """A copy of one clip's record."""
        row = self._row.get(clip_id)
        if row is None:
            raise KeyError(
                f"Clip {clip_id!r} is not in {self.folder}. "
                f"{near_names(clip_id, list(self._row)[:20])}"
            )
        number, row = divmod(row, self._shard_clips)
        if number not in self._open:
            path = _shard_path(self.folder, number)
            try:
                shard = _Shard(path)
                start = number * self._shard_clips
                rows = range(start, min(start + self._shard_clips, len(self)))
                if [self._row.get(clip) for clip in shard.clips] != list(rows):
                    raise ValueError("it holds other clips")
                self._open[number] = shard
            except _DAMAGE as error:
                raise self._damaged(
                    ValueError(f"{path.name}: {error}")
                ) from error
        return self._open[number].read(row)

    def __getstate__(self) -> dict[str, Any]:
        """Another process opens the shards itself."""
        return {**self.__dict__, "_open": {}}
