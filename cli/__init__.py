"""One file per command. Each parses its options, calls one function and passes the result to a report."""
