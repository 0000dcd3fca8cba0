"""The base of all rooms: records, canonical JSON, limits, specs, progress, whole files, locks, Dask's client."""
