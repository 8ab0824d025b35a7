"""Messages that came, until who waits for them has them; no Redis, no sockets."""
