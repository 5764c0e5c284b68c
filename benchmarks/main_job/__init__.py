"""Does the whole job work: are all surrogates found and no independent encoders, on small data, over seeds?"""
