"""Places hold bytes: folder, bucket, web server, hub, zip file; the cache; safe opening; create-only names."""
