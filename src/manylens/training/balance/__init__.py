"""Imbalance, each answer a switch: losses, sampling, made examples.

``losses``: on logits, per picture or pixel. ``sampling``: which pictures an epoch shows. ``synthetic``: SMOTE and kin
on embeddings. ``weights``: what class counts give. ``names``: what a config calls all of these; imports no torch.
"""
