"""Auditing: query a suspect, test it against the panel, reproduce a report. May import: every other room."""
