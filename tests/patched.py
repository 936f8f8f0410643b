"""An experimental change to sglang: a pause in place first processes the pending result.

See docs/findings.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from specdiff.fixtures.rig.release import find_release

NAME = "sglang/srt/managers/scheduler.py"

_DRAIN = """\
            if self.last_batch and self.result_queue[0][1] is not self._drained:
                self._drained = self.result_queue[0][1]
                self.process_batch_result(*self.result_queue[0])
"""


def patched_scheduler(release: str) -> str:
    """Return the source of the release's scheduler with the change."""
    text = (find_release(release).root / NAME).read_text()
    queued = "tmp_batch, tmp_result = self.result_queue.popleft()\n            "
    assert text.count(f"{queued}self.process_batch_result(") >= 2
    text = text.replace(
        f"{queued}self.process_batch_result(",
        f"{queued}tmp_result is self._drained or self.process_batch_result(",
    )
    mode = '        if recv_req.mode == "in_place":\n'
    head = "    def pause_generation(self, recv_req: PauseGenerationReqInput):\n"
    assert text.count(mode) == text.count(head) == 1
    return text.replace(mode, mode + _DRAIN).replace(head, f"    _drained = None\n\n{head}")


def patched_tree(folder: Path, release: str) -> Path:
    """Make a tree of the release in which every file is a link, except the changed one."""
    shutil.copytree(
        find_release(release).root,
        folder,
        symlinks=True,
        dirs_exist_ok=True,
        copy_function=lambda a, b: Path(b).symlink_to(a),
    )
    (folder / NAME).unlink()
    (folder / NAME).write_text(patched_scheduler(release))
    return folder
