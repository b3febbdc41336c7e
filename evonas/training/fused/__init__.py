"""Candidates of one shape trained at once: what one kernel of a GPU does for all of them."""
