"""Which recordings go into which shard, and the making of one."""
