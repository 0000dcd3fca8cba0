"""What all rooms use and none owns: records, canonical JSON, limits, specs, progress, files, locks, Dask's client."""
