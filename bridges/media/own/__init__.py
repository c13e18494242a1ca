"""Media between two of our own bridges, pure: what is sent when, and what is not sent at all."""
