"""Data nodes: what stands between a session and the data, and how a node is configured and described."""
