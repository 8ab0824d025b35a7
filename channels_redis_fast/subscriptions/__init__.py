"""Hears what is published for this process."""
