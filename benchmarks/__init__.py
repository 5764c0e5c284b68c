"""Measurements of Turnmark, one folder a question (README.md); nothing imports them but their own tests."""
