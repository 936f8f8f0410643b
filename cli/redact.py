"""specdiff redact: make a copy of a recording that can be shared."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from ..recorders.errors import UsageError
from . import options
from .inputs import check_is_recording, check_output, save
from .parameters import Named


@click.command()
@click.argument("recording", type=Named(path_type=Path, readable=False))
@options.output("Recording to write (*.h5).")
@options.force
def redact(recording: Path, output: Path, force: bool) -> None:
    """Copy a recording without its tokens, ids and paths.

    Every path computes the same values from the copy: lengths, counts, times, and which request stops when, are
    unchanged. Output tokens are replaced by a filler, except those that can stop a request. Request and session ids are
    renumbered, top-k rows are set to zero, and the command line is removed.
    """
    from ..recorders import hdf5
    from ..recorders.redact import redacted

    if recording.is_dir():
        raise UsageError(f"{recording} is a folder. Name one recording in it (*.h5).")
    check_is_recording(output)
    check_output(output, force=force, source=recording)
    loaded = hdf5.load(recording)
    source = hashlib.sha256(recording.read_bytes()).hexdigest()
    save(redacted(loaded, source), output, force=force)
    click.echo(str(output))
