"""From finished shards to a published dataset, in a folder or a bucket."""
