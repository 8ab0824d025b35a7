"""The Channels channel-layer specification, point by point, for any channel layer."""
