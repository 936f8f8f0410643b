"""The stand-ins of streaming sessions: what keeps a session's KV between two turns, and what a turn asks it with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .batch import Allocator, TreeCache
from .request import Kv, Request
from .scheduler import TokenPool
from .standin import Quiet, StandIn, known


class Session(StandIn):
    """`req.session`: an open streaming session. Which tokens it remembers is no book."""

    what = "req.session"
    streaming = True

    def __init__(self, session_id: int) -> None:
        self.session_id = session_id

    def finish_req(self, _: object) -> None: ...

    def abort_req(self) -> None: ...


class Slot(StandIn):
    """`SessionSlot`: what a session keeps. Its own lengths up to 0.5.18, since then those of the record it holds."""

    what = "slot"

    def __init__(self, defaults: dict[str, Any], record: Callable[[], Kv], given: dict[str, Any]):
        self.virtual_node = object()
        self.__dict__.update(defaults)
        self.__dict__.update(given)
        if "kv" not in self.__dict__:
            self.kv = record()

    @property
    def committed(self) -> int:
        """What the next turn inherits, in tokens."""
        own: int | None = self.__dict__.get("kv_committed_len")
        return self.kv.kv_committed_len if own is None else own


class _Pool(TokenPool):
    """Slots are taken back whole or in part: how many is a book, which ones is not."""

    free_slots = Quiet("req_to_token_pool.free_slots")

    def __getitem__(self, _: object) -> Any:
        return Quiet("KV slots")


class Sessions(StandIn):
    """`SessionAwareCache` and `StreamingSession`: slots by session; the tree behind them takes and frees anything."""

    what = "self"
    page_size = 1
    req_to_token_pool = _Pool()
    token_to_kv_pool_allocator = Allocator(1)

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.inner = self.cache = _Tree(page_size)
        self.slots: dict[int, Slot] = {}

    def free_kv_row(self, *_: object) -> None: ...

    def _free_slot_mamba(self, _: object) -> None: ...


class _Tree(TreeCache):
    """What an ordinary request would be matched against and put into."""

    def __init__(self, page_size: int) -> None:
        super().__init__(page_size)
        self.req_to_token_pool = _Pool()

    def match_prefix(self, _: object) -> None:
        """Nothing of a session's."""

    def dec_lock_ref(self, *_: object, **__: object) -> None: ...


class SessionTree(TreeCache):
    """The cache that a release hands a turn to: its session is asked first."""

    def __init__(self, page_size: int, save: Callable[[Request], bool]) -> None:
        super().__init__(page_size)
        self._save = save

    def cache_finished_req(self, req: Request, *_: object, **named: Any) -> None:
        if not self._save(req):
            super().cache_finished_req(req, **named)

    def claim_kv_row(self, req: Request) -> bool:
        return self._save(req)


class Key(StandIn):
    """`params.key`: so many tokens may be matched."""

    what = "params.key"

    def __init__(self, length: int) -> None:
        self.token_ids = range(length)

    def __len__(self) -> int:
        return len(self.token_ids)


class Match(StandIn):
    """`MatchPrefixParams`."""

    what = "params"

    def __init__(self, req: Request, key_len: int) -> None:
        self.req, self.key = req, Key(key_len)


def holds_known(request: Request) -> bool:
    return known(request.kv_committed_len) and known(request.kv_allocated_len)
