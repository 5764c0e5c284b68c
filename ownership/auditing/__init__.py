"""Auditing: query a suspect, test it against the panel, repeat an audit. May import: reports, sealing and below."""
