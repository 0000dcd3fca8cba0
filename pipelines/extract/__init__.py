"""Stage one asks a teacher about the views of a data set, and writes its answers to a store. `stage` reads first."""
