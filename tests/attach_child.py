"""A process that answers `specdiff record --attach` like a server.

All of it is real except sglang. It records GAP events.

Run it under `specdiff record --paused`. argv: a recording, whose run description this process
copies, and a Python statement to execute. The statement may use `state`, `folder`, `emit(count)`,
`attach(*words)` and `wait_for(condition, what)`. With `attach`, the process sends commands to
itself.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

TESTS = Path(__file__).parent


def main(recording: str, statement: str) -> None:
    from children import specdiff, wait_for
    from specdiff.recorders import hdf5
    from specdiff.recorders.capture import process_state
    from specdiff.recorders.capture import startup as startups
    from specdiff.recorders.capture.config import Config, from_env
    from specdiff.recorders.run import Run
    from specdiff.recorders.schema import Kind

    run = hdf5.load(Path(recording)).run

    def described(scheduler: Any, config: Config, sites: Any) -> Run:
        return dataclasses.replace(
            run, run_id=config.run_id, command=config.command, pid=os.getpid()
        )

    def emit(count: int) -> None:
        recorder = state.of_process(())
        assert recorder is not None, "nothing is being recorded"
        for _ in range(count):
            recorder.emit(Kind.GAP, (1,))

    vars(process_state).update(describe_run=described)
    vars(startups).update(describe_run=described, why_not_spec_v2=lambda scheduler: None)
    config = from_env(os.environ)
    assert config is not None

    def attach(*words: str, code: int = 0) -> tuple[str, str]:
        done = specdiff("record", "--attach", config.directory, *words)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done.stdout.strip(), done.stderr

    state = process_state.ProcessState(config, [])
    state.note.open()

    class Scheduler:
        server_args, forward_ct = SimpleNamespace(), 1
        __init__ = startups.Startup(state).wrap(lambda self: None)

    scheduler = Scheduler()
    told = {"emit": emit, "attach": attach, "wait_for": wait_for, "scheduler": scheduler}
    exec(statement, {**globals(), **told, "state": state, "folder": config.directory})  # noqa: S102 (the test supplies it)


if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))
    main(*sys.argv[1:])
