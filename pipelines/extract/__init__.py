"""Stage one: a teacher over the views of a data set, into a store. `stage` reads first."""
