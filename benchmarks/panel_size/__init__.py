"""How many panel members does a stratum need?"""
