"""Several processes that work together: Dask workers for blocks, ranks that share each batch of a training."""
