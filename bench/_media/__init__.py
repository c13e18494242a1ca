"""Real media bridges in processes of their own: clusters that send and take, and the path between them."""
