"""Computations over all blocks of a store: verify, diff, stats, recode, calibrate."""
