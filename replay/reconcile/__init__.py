"""What clients were told, held against the recorded books, request by request."""
