"""The trust tests at the larger size; `make torture` runs them and prints a table."""
