"""Images of mp's own, with which a cluster fills claims with weights. `resource` is the way in."""
