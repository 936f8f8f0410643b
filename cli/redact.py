"""specdiff redact: a recording that may be passed on."""

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
@options.output("The recording to write (*.h5).")
@options.force
def redact(recording: Path, output: Path, force: bool) -> None:
    """Write RECORDING again without tokens, ids and paths.

    Every path replays it as before, value for value: lengths, counts, times and who stops when stay. Output tokens
    become a filler, but for those that can stop a request; request and session ids are numbered anew, rows of top-k
    are zeros, the command line is left out.
    """
    from ..recorders import hdf5
    from ..recorders.redact import redacted

    if recording.is_dir():
        raise UsageError(f"{recording} is a folder; redact wants one recording of it (*.h5).")
    check_is_recording(output)
    check_output(output, force=force, source=recording)
    loaded = hdf5.load(recording)
    source = hashlib.sha256(recording.read_bytes()).hexdigest()
    save(redacted(loaded, source), output, force=force)
    click.echo(str(output))
