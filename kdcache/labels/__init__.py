"""Soft labels as numbers: their encodings, the tail sketch, and the objects that people hold; numpy or torch."""
