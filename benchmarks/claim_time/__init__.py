"""How long `turnmark claim build` takes for a victim with a key."""
