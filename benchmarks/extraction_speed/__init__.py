"""How fast is `extract`, compared with the extraction loop that the paper released?"""
