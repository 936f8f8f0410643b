"""Save and load recordings on disk. Only this module uses h5py.

Each table is one 2-D dataset, (columns, rows). Every column has its own chunks, unless the table is
small. `/manifest` holds the run attributes, the statistics and a digest of every dataset; its own
digest is a root attribute. Reading executes nothing from the file, and checks every size against
the bytes stored before it allocates memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from .derived import derived_from_json, derived_to_json
from .errors import COPY_AGAIN, RecordingError, is_a_journal, to_recover
from .file_names import JOURNAL
from .heaps import check_heaps
from .recording import TABLE_NAMES, Recording, columns, dtype_of
from .run import run_from_json, stats_from_json, to_json
from .schema import FORMAT, NONE32, NONE64, VERSION, columns_in
from .scratch import scratch

_CHUNK_ROWS = 65536
_CHUNK_BYTES = 32 << 20  # HDF5 refuses chunks of 4 GiB, and reads each chunk as a whole
# Bytes. A smaller table is one chunk, because every chunk costs about as much as a request.
_SMALL = 65536
_MAX_DEFLATE = 1040  # deflate never compresses better than 1032 to 1
_ARRAYS = ("tokens", "experts", "indexer")


def save(
    recording: Recording, path: Path, *, force: bool = False, remedy: str | None = None
) -> None:
    """Write a recording to `path`, completely or not at all.

    The recording goes into a temporary file, is read back and checked, and is then renamed.

    `remedy` tells the user what to do if writing fails. None means that `path` is built from a
    journal in the same folder, which then still exists.

    Raises RecordingError if `path` exists and `force` is not set, or if it cannot be written.
    """
    if path.exists() and not force:
        raise RecordingError(
            f"{path} exists; specdiff does not overwrite recordings. Use --force, or another name."
        )
    try:
        with scratch(path) as file:
            file.write(_image(recording))
            file.flush()
            os.fsync(file.fileno())
            _read_back(Path(file.name))
            Path(file.name).replace(path)
            _sync_folder(path.parent)
    except (OSError, RuntimeError, ValueError) as error:  # the last two are HDF5's
        remedy = remedy or f"The journal is kept. Fix that, then run `{to_recover(path.parent)}`."
        raise RecordingError(f"{path}: cannot be written ({error}). {remedy}") from error


def _read_back(written: Path) -> None:
    """Check that a file just written can be loaded.

    Raises OSError, not RecordingError, if it cannot: the disk is at fault, and there is no other
    copy of the file yet.
    """
    try:
        load(written)
    except RecordingError as error:
        why = str(error).removeprefix(f"{written}: ").replace(f" {COPY_AGAIN}", "")
        raise OSError(
            f"the file just written cannot be read back: {why.removesuffix('.')}"
        ) from error


def is_saved(recording: Recording, path: Path) -> bool:
    """Whether `path` is an undamaged file of exactly this recording."""
    if not path.is_file():
        return False
    try:
        return _manifest_of(load(path)) == _manifest_of(recording)
    except RecordingError:
        return False


def load(path: Path) -> Recording:
    """Read a recording and check every digest and every count.

    Raises RecordingError, which names the file, the dataset and what to do.
    """
    try:
        _check_is_hdf5(path)
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read ({error}).") from error
    try:
        with h5py.File(path, "r") as file:
            return _read(file)
    except RecordingError as error:
        raise RecordingError(f"{path}: {error}") from error
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise RecordingError(
            f"{path}: HDF5 cannot read it ({error}): truncated or corrupt. {COPY_AGAIN}"
        ) from error


def _check_is_hdf5(path: Path) -> None:
    """Raises RecordingError if `path` is not an HDF5 file, OSError if it cannot be accessed."""
    if not path.is_file():
        what = "not a file" if path.exists() else "no such file"
        raise RecordingError(
            f"{path}: {what}. Expected a recording (*.h5), as `specdiff record` writes them."
        )
    if not h5py.is_hdf5(path):
        raise RecordingError(_not_hdf5(path))


def _image(recording: Recording) -> bytes:
    """Return the bytes of the HDF5 file.

    HDF5 builds the file in memory and never writes to disk itself: on a full disk it fails to
    close the file, and then the process crashes.
    """
    with h5py.File(
        "x", "w", driver="core", backing_store=False, libver=("v110", "v110"), fs_strategy="none"
    ) as file:
        _write(file, recording)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def _sync_folder(folder: Path) -> None:
    """Sync the folder, so that a power cut after the journal's deletion does not lose the new name.

    Errors are ignored: some file systems do not support this.
    """
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _arrays(recording: Recording) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield each dataset's name and array, one at a time, because each table is copied for it."""
    for name, cls in TABLE_NAMES.items():
        yield name, _stack(getattr(recording, name), cls)
    for name in _ARRAYS:
        yield name, getattr(recording, name)


def _write(file: h5py.File, recording: Recording) -> None:
    declared = {}
    for name, array in _arrays(recording):
        _create(file, name, array)
        declared[name] = _declared(array)
    text = _manifest_text(recording, declared)
    _create(file, "manifest", np.frombuffer(text, dtype=np.uint8))
    # Bytes, because a single str attribute makes the file 4 KiB longer.
    file.attrs["format"] = np.bytes_(FORMAT)
    file.attrs["version"] = VERSION
    file.attrs["manifest_sha256"] = np.bytes_(hashlib.sha256(text).hexdigest())
    file.attrs["complete"] = True


def _manifest_of(recording: Recording) -> bytes:
    declared = {name: _declared(array) for name, array in _arrays(recording)}
    return _manifest_text(recording, declared)


def _declared(array: NDArray[Any]) -> dict[str, Any]:
    return {"dtype": array.dtype.str, "shape": array.shape, "sha256": _digest(array)}


def _manifest_text(recording: Recording, declared: Mapping[str, Mapping[str, Any]]) -> bytes:
    manifest = {
        "run": json.loads(to_json(recording.run)),
        "stats": recording.stats and json.loads(to_json(recording.stats)),
        "damage": recording.damage,
        "derived": derived_to_json(recording.derived),
        "rids": recording.rids,
        "details": recording.details,
        "tables": declared,
    }
    if recording.version != VERSION:  # made from an older file, which lacks the newer columns
        manifest["holds"] = recording.version
    return json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()


def _create(file: h5py.File, name: str, array: NDArray[Any]) -> None:
    """Write one dataset. An empty array gets none, because an empty dataset takes 270 bytes."""
    if array.size == 0:
        return
    if array.nbytes <= _SMALL:
        chunk, level = array.shape, 9
    elif name in TABLE_NAMES:
        chunk, level = (1, min(array.shape[1], _CHUNK_ROWS)), 1
    else:
        rows = max(_CHUNK_BYTES // (array.nbytes // len(array)), 1)
        chunk, level = (min(len(array), _CHUNK_ROWS, rows), *array.shape[1:]), 1
    file.create_dataset(
        name, data=array, chunks=chunk, compression="gzip", compression_opts=level, shuffle=True
    )


def _read(file: h5py.File) -> Recording:
    version = _checked_version(file)
    manifest = _manifest(file)
    declared: Mapping[str, Mapping[str, Any]] = manifest["tables"]
    names = {name: columns_in(version, name, cls) for name, cls in TABLE_NAMES.items()}
    expected = {*(name for name, held in names.items() if held), *_ARRAYS}
    found = set(file) - {"manifest"}
    empty = {name for name, table in declared.items() if 0 in table["shape"]}
    if declared.keys() != expected or not expected - empty <= found <= expected:
        different = (found | empty) ^ expected or declared.keys() ^ expected
        raise RecordingError(
            f"tables missing or unknown in version {version}: {', '.join(sorted(different))}"
        )
    arrays: dict[str, Any] = {
        name: _dataset(file, name, declared[name]) for name in sorted(expected)
    }
    tables: dict[str, Any] = {
        name: _unstack(arrays.get(name), name, cls, names[name])
        for name, cls in TABLE_NAMES.items()
    }
    stats = manifest["stats"]
    return Recording(
        run=run_from_json(json.dumps(manifest["run"])),
        stats=stats_from_json(json.dumps(stats)) if stats is not None else None,
        damage=manifest["damage"],
        derived=derived_from_json(
            manifest.get("derived", [])
        ),  # absent: written before there was any
        rids=tuple(manifest["rids"]),
        details=tuple(manifest["details"]),
        **tables,
        **{name: arrays[name] for name in _ARRAYS},
        version=_contents_version(manifest, version),
    )


def _contents_version(manifest: Mapping[str, Any], version: int) -> int:
    """The format version of the file's contents.

    This is the file's own `version`, unless the file was made from an older recording.
    """
    held = manifest.get("holds", version)
    if type(held) is not int or not 1 <= held <= version:
        raise RecordingError(_foreign_manifest(f"a format version from 1 to {version} in holds"))
    return held


def _checked_version(file: h5py.File) -> int:
    if (found := _attribute(file, "format")) != FORMAT:
        inside = ", ".join(sorted(file)[:5]) or "nothing"
        raise RecordingError(
            f"an HDF5 file, but not a specdiff recording: its format attribute is {found!r}, expected {FORMAT!r} "
            f"(the file contains {inside})"
        )
    version = file.attrs.get("version")
    if not isinstance(version, int | np.integer) or not 1 <= version <= VERSION:
        newer = isinstance(version, int | np.integer) and version > VERSION
        remedy = (
            "Install a newer specdiff."
            if newer
            else "No specdiff release wrote such a version: the file is corrupt."
        )
        raise RecordingError(
            f"a recording of format version {version}; this specdiff reads 1 to {VERSION}. {remedy}"
        )
    if not file.attrs.get("complete", False):
        raise RecordingError(
            "the recording is unfinished: it has no `complete` mark. Run `specdiff recover DIR` on the folder "
            "that it was recorded into."
        )
    return int(version)


def _attribute(file: h5py.File, name: str) -> Any:
    """Return a root attribute. The first recordings stored texts as str; they are bytes now."""
    if name in file.attrs and file.attrs.get_id(name).dtype == object:
        check_heaps(Path(file.filename).read_bytes())
    value = file.attrs.get(name)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _manifest(file: h5py.File) -> dict[str, Any]:
    if "manifest" not in file:
        raise RecordingError(f"/manifest is missing: the file is corrupt. {COPY_AGAIN}")
    dataset = _as_dataset(file, "manifest")
    if dataset.dtype != np.uint8 or dataset.ndim != 1:
        raise RecordingError(f"/manifest is {dataset.dtype} {dataset.shape}, expected text")
    _check_size("manifest", dataset)
    text = dataset[()].tobytes()
    if hashlib.sha256(text).hexdigest() != _attribute(file, "manifest_sha256"):
        raise RecordingError(_corrupt("manifest"))
    return _checked_manifest(json.loads(text))


_MANIFEST = {"run": dict, "tables": dict, "rids": list, "details": list}


def _checked_manifest(manifest: Any) -> dict[str, Any]:
    """Check the keys that are read, and their types.

    The digest does not make this redundant: a foreign program may write a matching one.
    """
    wrong = [
        f"{key}: {kind.__name__}"
        for key, kind in _MANIFEST.items()
        if not isinstance(manifest, dict) or not isinstance(manifest.get(key), kind)
    ]
    if wrong or not {"stats", "damage"} <= manifest.keys():
        raise RecordingError(_foreign_manifest(", ".join(wrong) or "stats and damage"))
    texts = [*manifest["rids"], *manifest["details"], manifest["damage"] or ""]
    if not all(isinstance(text, str) for text in texts):
        raise RecordingError(_foreign_manifest("texts in rids, details and damage"))
    for name, declared in manifest["tables"].items():
        if not isinstance(declared, dict) or not {"dtype", "shape", "sha256"} <= declared.keys():
            raise RecordingError(_foreign_manifest(f"dtype, shape and sha256 of /{name}"))
    checked: dict[str, Any] = manifest
    return checked


def _foreign_manifest(expected: str) -> str:
    return f"/manifest was not written by specdiff: expected {expected}. {COPY_AGAIN}"


def _as_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise RecordingError(
            f"/{name} is a {type(found).__name__}, expected a dataset: the file is corrupt. {COPY_AGAIN}"
        )
    return found


def _dataset(file: h5py.File, name: str, declared: Mapping[str, Any]) -> NDArray[Any]:
    if name not in file:  # `_read` made sure that only empty arrays have no dataset
        return _checked(name, np.zeros(declared["shape"], declared["dtype"]), declared)
    dataset = _as_dataset(file, name)
    found = (dataset.dtype.str, tuple(dataset.shape))
    expected = (declared["dtype"], tuple(declared["shape"]))
    if found != expected:
        raise RecordingError(
            f"/{name} is {found[0]} {found[1]}, but the manifest declares {expected[0]} {expected[1]}"
        )
    _check_size(name, dataset)
    return _checked(name, dataset[()], declared)


def _checked(name: str, array: NDArray[Any], declared: Mapping[str, Any]) -> NDArray[Any]:
    if _digest(array) != declared["sha256"]:
        raise RecordingError(_corrupt(name))
    return array


def _check_size(name: str, dataset: h5py.Dataset) -> None:
    """Raises RecordingError if a dataset claims more bytes than its stored bytes can expand to.

    A damaged HDF5 header can claim any shape, and any number of stored bytes. Without this check
    it could make the reader allocate any amount of memory.
    """
    size = Path(dataset.file.filename).stat().st_size
    stored = min(dataset.id.get_storage_size(), size)
    if dataset.size * dataset.dtype.itemsize > max(stored, 1) * _MAX_DEFLATE:
        raise RecordingError(
            f"/{name} claims shape {dataset.shape} but stores only {stored} bytes: the file is corrupt"
        )


def _digest(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _stack(table: Any, cls: type) -> NDArray[Any]:
    return np.stack([values for _, values in columns(table)]).astype(dtype_of(cls), copy=False)


def _unstack(array: NDArray[Any] | None, name: str, cls: Any, held: tuple[str, ...]) -> Any:
    """Return the table; all values of a column that its version did not have yet are absent."""
    dtype = dtype_of(cls)
    if array is None:
        return cls(*(np.zeros(0, dtype) for _ in dataclasses.fields(cls)))
    if array.ndim != 2 or len(array) != len(held) or array.dtype != dtype:
        raise RecordingError(
            f"/{name} is {array.dtype} {array.shape}, expected {len(held)} columns"
        )
    absent = np.full(array.shape[1], NONE32 if dtype is np.int32 else NONE64, dtype)
    stored = dict(zip(held, array, strict=True))
    return cls(*(stored.get(field.name, absent) for field in dataclasses.fields(cls)))


def _corrupt(name: str) -> str:
    return f"/{name} does not match its digest: the file is corrupt. {COPY_AGAIN}"


def _not_hdf5(path: Path) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
    if path.name.endswith(JOURNAL):
        return is_a_journal(path)
    return f"{path}: not an HDF5 file ({size} bytes, it starts with {start!r}). Expected a recording (*.h5)."
