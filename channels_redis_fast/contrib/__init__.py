"""Ties to other packages, each of which an extra installs."""
