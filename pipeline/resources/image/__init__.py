"""Images: which layers a model becomes, how they are named, put together, published, signed and pruned. `resource` is the way in."""
