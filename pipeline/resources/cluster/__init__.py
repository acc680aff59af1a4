"""Objects in Kubernetes clusters: one driver for every target that is made of them. `driver` is the door."""
