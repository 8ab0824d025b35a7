"""Names to keys and shards, messages to bytes and back; no Redis, no I/O."""
