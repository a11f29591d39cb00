"""Learned priors: the network, its file, the adapter to physical units, and the shipped weights by name.

Read network, denoiser, weight_file, formats, catalogue in this order; checkpoints holds the formats of
other toolkits.
"""
