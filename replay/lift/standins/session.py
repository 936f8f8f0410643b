"""The stand-ins of streaming sessions: the KV that a session keeps between turns, and what a turn looks it up with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .base import Quiet, StandIn, known
from .batch import Allocator, TreeCache
from .request import Kv, Request
from .scheduler import TokenPool


class Session(StandIn):
    """`req.session`: an open streaming session. No book depends on the tokens that it remembers."""

    what = "req.session"
    streaming = True

    def __init__(self, session_id: int) -> None:
        self.session_id = session_id

    def finish_req(self, _: object) -> None: ...

    def abort_req(self) -> None: ...


class SessionSlot(StandIn):
    """`SessionSlot`: what a session keeps.

    It has its own lengths up to 0.5.18; since then its KV record has them.
    """

    what = "slot"

    def __init__(self, defaults: dict[str, Any], record: Callable[[], Kv], given: dict[str, Any]):
        self.virtual_node = object()
        self.__dict__.update(defaults)
        self.__dict__.update(given)
        if "kv" not in self.__dict__:
            self.kv = record()

    @property
    def committed(self) -> int:
        """The number of tokens that the next turn inherits."""
        own: int | None = self.__dict__.get("kv_committed_len")
        return self.kv.kv_committed_len if own is None else own


class _Pool(TokenPool):
    """A pool that takes slots back. Books depend on how many slots it takes, not on which."""

    free_slots = Quiet("req_to_token_pool.free_slots")

    def __getitem__(self, _: object) -> Any:
        return Quiet("KV slots")


class Sessions(StandIn):
    """`SessionAwareCache` and `StreamingSession`: slots by session.

    The tree cache behind them accepts and frees anything.
    """

    what = "self"
    page_size = 1
    req_to_token_pool = _Pool()
    token_to_kv_pool_allocator = Allocator(1)

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.inner = self.cache = _Tree(page_size)
        self.slots: dict[int, SessionSlot] = {}

    def free_kv_row(self, *_: object) -> None: ...

    def _free_slot_mamba(self, _: object) -> None: ...


class _Tree(TreeCache):
    """The cache that an ordinary request would be matched with and inserted into."""

    def __init__(self, page_size: int) -> None:
        super().__init__(page_size)
        self.req_to_token_pool = _Pool()

    def match_prefix(self, _: object) -> None:
        """Matches nothing: a session's KV is not in the tree."""

    def dec_lock_ref(self, *_: object, **__: object) -> None: ...


class SessionTree(TreeCache):
    """The cache to which a turn is released. It first offers the turn to its session."""

    def __init__(self, page_size: int, save: Callable[[Request], bool]) -> None:
        super().__init__(page_size)
        self._save = save

    def cache_finished_req(self, req: Request, *_: object, **named: Any) -> None:
        if not self._save(req):
            super().cache_finished_req(req, **named)

    def claim_kv_row(self, req: Request) -> bool:
        return self._save(req)


class RadixKey(StandIn):
    """`params.key`, a `RadixKey`: only its length matters, the number of tokens that may be matched."""

    what = "params.key"

    def __init__(self, length: int) -> None:
        self.token_ids = range(length)

    def __len__(self) -> int:
        return len(self.token_ids)


class MatchPrefixParams(StandIn):
    """`MatchPrefixParams`: what a turn is looked up with."""

    what = "params"

    def __init__(self, req: Request, key_len: int) -> None:
        self.req, self.key = req, RadixKey(key_len)


def holds_known(request: Request) -> bool:
    """Whether both lengths of the request are known."""
    return known(request.kv_committed_len) and known(request.kv_allocated_len)
