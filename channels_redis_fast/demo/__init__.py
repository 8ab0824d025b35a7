"""The demo: a small Django site on two server processes, and its check."""
