"""A store checked against its own records, its data set and its teacher. `stage` reads first."""
