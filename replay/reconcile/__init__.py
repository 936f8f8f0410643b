"""Compare what clients received with the recorded books, request by request."""
