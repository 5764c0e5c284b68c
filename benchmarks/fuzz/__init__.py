"""Does a mutated suspect file escape the sandbox's loader?"""
