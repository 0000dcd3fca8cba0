"""A sweep trains many students from one file. `stage` reads first."""
