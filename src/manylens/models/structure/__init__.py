"""Structure of a picture as a map: edges, lines, scribbles, poses; conditions for making pictures.

All maps are of the photo's own size. ``edges`` is float32 in 0..1; ``canny``, ``lines`` and ``scribble`` are uint8, 255
on a line and 0 elsewhere; ``pose`` is an RGB drawing on black with the keypoints beside it.
"""
