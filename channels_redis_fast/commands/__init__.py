"""What to say to Redis and what its answers mean; no I/O."""
