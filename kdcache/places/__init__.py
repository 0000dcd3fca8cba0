"""Where stores lie: folders, buckets, web servers, the hub, zip files, and a cache of far ones."""
