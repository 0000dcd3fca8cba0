"""Answers that others captured become stores: layouts of files are read here, one a file."""
