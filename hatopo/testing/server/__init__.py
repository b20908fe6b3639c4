"""What all servers are: sockets, sessions, the order of checks, and the commands that concern connections."""
