"""Other systems' wire formats, translated to our own services."""
