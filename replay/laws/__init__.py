"""Invariants that any correct books obey, checked on one ledger alone."""
