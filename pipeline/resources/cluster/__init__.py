"""Objects in Kubernetes clusters: one driver for every target that is made of them. `driver` is the door.

What it does, in the order in which a run does it, and the files of each:

look       looking (a namespace at once), live (lists), scalers, rotation (secrets), added (what others set), fields
compare    comparing, shape (a live object in mp's fields), ignoring, moved (registries), marks, state (what is compared)
preflight  preflight/: one file a question; capacity (free GPUs), placing, products, quantities; returning
bring      rollout, waiting, turns (who has the spare GPUs), returning, filling (claims), sending, applying, canary;
           standing (what others made), restoring (an earlier version)
say        health (six words), workloads (the kinds that run pods: sets, groups, kaito), pods (why one does not serve),
           volumes (what goes, what stays)

`pod` makes the pod that serves: targets use it when they expand a model.
"""
