"""Learned classifiers of noisy images, p(c | x_t): the network, its file, and the shipped weights by name.

A classifier as a likelihood turns an unconditional prior into a class-conditional one:

    grad log p(x_t | c) = grad log p(x_t) + gamma grad log p(c | x_t)

Read network, formats, guide in this order.
"""
