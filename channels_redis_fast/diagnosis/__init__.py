"""Looks at the servers of a layer, and says what is wrong and what helps."""
