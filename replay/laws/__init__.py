"""Laws: invariants that any correct books obey. Each is checked on a single ledger."""
