"""How long does the paper's victim take on one GPU, and what does its watermark cost there?"""
