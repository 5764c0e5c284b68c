"""What does watermarked training cost, and how well is the watermark detected afterwards?"""
