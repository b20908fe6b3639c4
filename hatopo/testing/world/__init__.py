"""What the servers of a deployment share: time, the thread that they live on, and the network between them."""
