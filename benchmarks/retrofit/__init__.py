"""What does a watermark cost that is embedded into a public model, and what does its claim say of other copies?"""
