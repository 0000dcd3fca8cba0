"""Many trainings from one file. `stage` reads first."""
