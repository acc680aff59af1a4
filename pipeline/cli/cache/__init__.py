"""What the commands about the cache share: `storage` opens it, the others pull, import, list what is needed and prune."""
