"""One file per command: each parses, calls one function, and hands what comes back to a report."""
