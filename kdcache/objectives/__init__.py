"""Losses, one idea a file, and the Batch that they are called with; `catalogue` names them all."""
