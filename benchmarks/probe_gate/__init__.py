"""Can a gate tell the probes of a claim from its users' images?"""
