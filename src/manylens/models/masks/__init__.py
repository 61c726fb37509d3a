"""Mask2Former (Cheng et al., 2022) and EoMT (Kerssies et al., 2025): a closed set of classes as masks."""
