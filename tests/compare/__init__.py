"""Comparisons of runs, and their page."""
