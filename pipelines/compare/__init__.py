"""Runs and stores held against a teacher's stored answers on held-out rows. `stage` reads first."""
