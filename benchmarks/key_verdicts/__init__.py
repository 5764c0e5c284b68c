"""Without a panel: how often is an independent encoder called a copy, how often is a surrogate found?"""
