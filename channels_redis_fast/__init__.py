"""A fast Redis channel layer for Django Channels."""
