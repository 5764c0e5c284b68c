"""Which transforms of a surrogate's representations hide it from the key test?"""
