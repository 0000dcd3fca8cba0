"""Real libraries of others: their data sets, their teachers, their loops. `make ecosystem` runs these tests."""
