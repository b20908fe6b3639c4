"""What joins hatopo to the programs around it: middlewares for web applications."""
