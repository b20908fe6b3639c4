"""How much CPU a client spends above a bare socket, side by side with redis-py, on a server of its own."""
