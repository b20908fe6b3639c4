"""Users, their rights, and the ACL command."""
