"""Programs that scenarios start as processes of their own."""
