"""A store travels: push, pull, export, merge, card."""
