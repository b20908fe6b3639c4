"""The data: fakeredis, and what of it had to be different. No other package imports it, or knows of it."""
