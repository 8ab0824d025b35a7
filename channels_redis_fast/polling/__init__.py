"""Pops what lies in Redis for this process."""
