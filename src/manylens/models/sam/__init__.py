"""Segment Anything (Kirillov et al. 2023): clicks, boxes, masks and everything, from a checkpoint in the hub's form."""
