"""Stores that travel: copies, parts, merged stores, one file, and what is written about them for people."""
