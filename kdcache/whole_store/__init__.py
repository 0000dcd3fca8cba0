"""What is computed over all blocks of a store: verify, diff, stats, recode, calibrate."""
