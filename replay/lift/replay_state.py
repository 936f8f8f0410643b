"""The stand-ins of one replay: its requests, scheduler and server args, and how lifted code is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...recorders.recording import Recording
from ...recorders.schema import VERSION
from ..quantity import Quantity
from .link import Linked, Program
from .missing import CannotRunError, Missing
from .roles import Role
from .standins.base import UNKNOWN_LEN
from .standins.batch import Batch, DraftInput, TreeCache
from .standins.request import Request
from .standins.scheduler import FutureMap, Scheduler
from .standins.server_args import ServerArgs
from .standins.vector import Vector

# sglang's names for the counters of a request, the newest first.
_COUNTERS = {
    Quantity.SPEC_VERIFY_CT: ("spec_verify_ct",),
    Quantity.SPEC_ACCEPTED_DRAFTS: (
        "spec_num_correct_drafts",  # from 0.5.12
        "spec_accepted_drafts",  # 0.5.11
        "spec_accepted_tokens",
    ),
}


_HISTOGRAMS = ("spec_correct_drafts_histogram", "spec_acceptance_histogram")

# Which role prepares a decode under each algorithm.
_PREPARES = {
    **dict.fromkeys(("EAGLE", "EAGLE3", "NEXTN", "STANDALONE", "FROZEN_KV_MTP"), Role.PREPARE),
    **dict.fromkeys(("DFLASH", "DSPARK"), Role.PREPARE_DFLASH),
    "NGRAM": Role.PREPARE_NGRAM,
}


_RELEASED_MARKS = ("kv_committed_freed", "kv_overallocated_freed")


def prepare_of(program: Program, algorithm: str) -> Role | None:
    """Return the role that prepares a decode under this algorithm; None if this program has none."""
    role = _PREPARES.get(algorithm)
    return role if role and role.value in program.surface.roles else None


class ReplayState:
    """The state of one replay. All lengths are unknown until an extend or a seed sets them.

    Raises CannotRunError if the recording's algorithm has no known prepare in this program.
    """

    def __init__(self, program: Program, recording: Recording) -> None:
        algorithm = recording.run.spec_algorithm.upper()
        prepare = prepare_of(program, algorithm)
        if prepare is None:
            known = (
                name for name, role in _PREPARES.items() if role.value in program.surface.roles
            )
            raise CannotRunError(
                f"cannot run: {program.name} has no prepare for {algorithm or 'no speculation'} at any known place; "
                f"it has one for {', '.join(known)}"
            )
        self.prepare = prepare
        self.called: set[Role] = set()
        self.program, self.server_args = program, ServerArgs(recording.run)
        self.linked = linked = Linked(program, self.server_args)
        linked.types[Request].kv_is_optional = _kv_is_optional(linked)
        linked.types[Request].committed_on_kv = "kv_committed_len" in linked.kv_defaults
        self.tree = TreeCache(self.server_args.page_size)
        self.scheduler: Scheduler = linked.types[Scheduler]()
        self.future_map: FutureMap = linked.types[FutureMap](
            recording.run.needs_cpu_seq_lens, self.server_args.algorithm
        )
        self.counters = {  # only counters that the lifted code keeps: an unknown new name is absent, not 0
            quantity: kept
            for quantity, names in _COUNTERS.items()
            if (kept := next((n for n in names if n in linked.request_defaults), None))
        }
        self._note_released()
        self.histogram = next((n for n in _HISTOGRAMS if n in linked.request_defaults), None)
        self.requests = _Requests(self._request, recording.rids)
        places = {role: key for role in Role if (key := program.surface.roles.get(role.value))}
        self._functions = {role: linked.role(role) for role in places}
        self._methods = {role: "." in key.partition(":")[2] for role, key in places.items()}

    def _note_released(self) -> None:
        """Wrap the request's function for its committed length, so that the last answer, the released length, is stored."""
        place = self.program.surface.roles.get(Role.COMMIT_LENGTH.value)
        if place is None:
            return
        name, owner = place.rpartition(".")[2], self.linked.types[Request]
        ask = getattr(owner, name)

        def remembering(request: Request) -> int:
            self.called.add(Role.COMMIT_LENGTH)
            request.released = length = ask(request)
            return int(length)

        setattr(owner, name, remembering)

    def has(self, role: Role) -> bool:
        return role in self._methods

    def is_method(self, role: Role) -> bool:
        return self._methods[role]

    def call(self, role: Role, *arguments: Any, **named: Any) -> Any:
        """Call a role's function.

        Raises CannotRunError, which names what the function needed and did not find.
        """
        self.called.add(role)
        try:
            return self._functions[role](*arguments, **named)
        except Missing as missing:
            raise CannotRunError(self._wanted(role, missing)) from None
        except Exception as error:
            raise CannotRunError(
                f"cannot run: {self.program.name} {role.value} raised "
                f"{type(error).__name__}: {error or 'without a message'}"
            ) from error

    def batch(self, reqs: list[Request], seq_lens: Sequence[int]) -> Batch:
        """Return a new batch."""
        batch: Batch = self.linked.types[Batch](
            reqs, list(seq_lens), self.server_args.algorithm, self.tree
        )
        return batch

    def answered(self, reqs: list[Request]) -> Batch:
        """Return the batch for a result: sglang's copy of the launched batch, whose lengths belong to no single moment."""
        batch = self.batch(reqs, ())
        del batch.seq_lens, batch.seq_lens_cpu, batch.orig_seq_lens, batch.seq_lens_sum
        return batch

    def draft_input(self, qids: Sequence[int]) -> DraftInput:
        defaults = self.linked.draft_defaults.fresh()
        draft: DraftInput = self.linked.types[DraftInput](Vector(qids), defaults)
        return draft

    def unknown_request(self) -> Request:
        """Return a request that represents a member of a batch whose members were not recorded."""
        return self._request(len(self.requests.rids), "?")

    def forget(self) -> None:
        """Forget everything known so far, because events were lost."""
        for request in self.requests.values():
            request.registers_kv()  # the lost events may have given it KV
            request.kv_committed_len = request.kv_allocated_len = UNKNOWN_LEN
            self.set_counters(request, UNKNOWN_LEN)
        self.future_map.new_seq_lens_buf.published.clear()

    def holds_kv_again(self, request: Request) -> None:
        """Clear the marks (up to 0.5.15) that the KV was released, because an extend gave the request KV again."""
        for name in _RELEASED_MARKS:
            if name in self.linked.request_defaults:
                setattr(request, name, False)

    def set_counters(self, request: Request, value: int) -> None:
        """Set all counters of a request and empty its histogram."""
        for name in self.counters.values():
            setattr(request, name, value)
        if self.histogram is not None:
            setattr(request, self.histogram, [])

    def _request(self, qid: int, rid: str) -> Request:
        linked = self.linked
        defaults = linked.request_defaults.fresh()
        request: Request = linked.types[Request](qid, rid, linked.record(qid), defaults)
        self.set_counters(request, UNKNOWN_LEN)
        return request

    def _wanted(self, role: Role, missing: Missing) -> str:
        says = f"cannot run: {self.program.name} {role.value} {missing.verb} {missing.what}"
        if missing.what.startswith(("the global ", "the decorator ")):
            return f"{says}, which specdiff has no stand-in for; docs/lifting.md says what to do"
        return f"{says}, which recordings of format {VERSION} do not hold; docs/lifting.md says what to do"


class _Requests(dict[int, Request]):
    """The requests by number, each created at first use, because a replay that stops early needs few of them."""

    def __init__(self, make: Callable[[int, str], Request], rids: Sequence[str]) -> None:
        self._make, self.rids = make, rids

    def __missing__(self, qid: int) -> Request:
        self[qid] = request = self._make(qid, self.rids[qid])
        return request


def _kv_is_optional(linked: Linked) -> bool:
    """Whether sglang sets `req.kv` to None for a request without KV, because `req.kv` itself cannot say that."""
    return not linked.has("ReqKvInfo", "holds_kv")
