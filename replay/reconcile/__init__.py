"""Compare what clients were told with the recorded books, request by request."""
