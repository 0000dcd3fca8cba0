"""Batches and their order, the loader, run folders, optimisers, metrics, processes that train together."""
