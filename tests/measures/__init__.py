"""Measures against figures computed by hand, and against libraries."""
