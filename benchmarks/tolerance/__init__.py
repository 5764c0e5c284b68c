"""Which changes by a provider, of images and of representations, does the evidence tolerate?"""
