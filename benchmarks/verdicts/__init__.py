"""How often does an audit call an independent encoder a copy, and how often does it find a surrogate?"""
