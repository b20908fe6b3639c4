"""Masters, replicas, and what goes from one to the other."""
