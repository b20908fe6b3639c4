"""hatopo: high availability for redis-py."""
