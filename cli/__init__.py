"""The `turnmark` command: one short file a command, no science in it."""
