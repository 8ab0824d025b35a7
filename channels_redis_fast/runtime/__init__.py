"""Where a layer's work runs: in an event loop, or in the calling thread."""
