"""Does a watermark that is embedded in a public ImageNet encoder find its surrogates, and what does it cost?"""
